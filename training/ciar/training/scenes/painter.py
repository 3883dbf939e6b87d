"""Paints a scene from back to front.

Flows in: a `Scene` and a random generator. Flows out: uint8 (S, S, 3). Where things stand is decided here, so that none
hides another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ciar.training.scenes import sky, terrain, things, water
from ciar.training.scenes.canvas import GRID, Canvas, Field
from ciar.training.scenes.grammar import Scene
from ciar.training.scenes.palette import LANDS, Land, Light, light_of

NUM_SLOTS = 8
"""Things take slots of the picture's width; each slot is given away once."""


class Painter:
    """One picture in the making."""

    def __init__(self, scene: Scene, rng: np.random.Generator, size: int) -> None:
        self.scene, self.rng, self.canvas = scene, rng, Canvas(size)
        self.light: Light = light_of(scene.time, scene.weather)
        self.land: Land = LANDS[scene.land]
        self.horizon = float(rng.integers(16, 19)) / GRID
        self.sun = float(rng.choice([-1.0, 1.0]))
        self.free = list(range(NUM_SLOTS))
        self.course = water.river_course(rng) if scene.water == "river" else None

    def paint(self) -> NDArray[np.uint8]:
        """uint8 (S, S, 3)."""
        self._heavens()
        self._relief()
        self._veil()
        self._foreground()
        if self.scene.weather == "fog":
            sky.paint_wisps(self.canvas, self.rng, self.light, self.horizon)
        self._things()
        if self.scene.weather == "rain":
            sky.paint_rain(self.canvas, self.rng, self.light)
        if self.scene.weather == "snowfall":
            sky.paint_snowfall(self.canvas, self.rng, self.light)
        return self.canvas.finish()

    def _heavens(self) -> None:
        scene, rng = self.scene, self.rng
        sky.paint_sky(self.canvas, self.light, self.horizon)
        if scene.weather in ("rain", "snowfall"):
            sky.paint_overcast(self.canvas, rng, self.light)
        if scene.weather not in ("clear sky", "clouds"):
            return
        low = scene.time in ("sunset", "dawn")
        x = (float(rng.integers(5, 13)) + (14 if self.sun > 0 else 0)) / GRID
        y = self.horizon - float(rng.integers(3, 7)) / GRID if low else float(rng.integers(3, 6)) / GRID
        if scene.time == "night":
            sky.paint_stars(self.canvas, rng, self.horizon, 22 if scene.weather == "clear sky" else 10, (x, y))
        sky.paint_disc(self.canvas, self.light, x, y, scene.moon == "crescent moon")
        if scene.weather == "clouds":
            places = [k / 8 for k in (1, 3, 5, 7) if low or abs(k / 8 - x) > 0.16]
            count = min(len(places), int(rng.integers(2, 4)))
            sky.paint_clouds(self.canvas, rng, self.light, [float(p) for p in rng.permutation(places)[:count]])

    def _relief(self) -> None:
        canvas, rng, light, land, base = self.canvas, self.rng, self.light, self.land, self.horizon
        if self.scene.relief == "mountains":
            for kind in (terrain.FAR_RANGE, terrain.NEAR_RANGE):
                terrain.paint_mountains(canvas, rng, light, land, kind, base, self.sun)
        if self.scene.relief == "hills":
            for height, far in ((0.24, 0.45), (0.16, 0.24), (0.07, 0.08)):
                terrain.paint_hills(canvas, rng, light, land.hill, base + 0.02, height, far, self.sun)
        if self.scene.relief == "plain":
            edge = np.full(canvas.size, base - 0.006, np.float32)
            terrain.paint_slope(canvas, light, land.hill, edge, 0.05, 0.45, self.sun)

    def _veil(self) -> None:
        """Fog lies over all that is far, thickest at the horizon."""
        if self.scene.weather == "fog":
            sky.paint_fog(self.canvas, self.rng, self.light, self.horizon)

    def _foreground(self) -> None:
        if self.scene.water == "lake":
            self._lake()
        elif self.scene.water == "sea":
            self._sea()
        else:
            self._dry_land()

    def _lake(self) -> None:
        """A far bank, perhaps wooded, its mirror image, and the near shore."""
        canvas, rng, light, horizon = self.canvas, self.rng, self.light, self.horizon
        shore = water.shore_line(canvas, rng)
        bank = np.full(canvas.size, horizon - 0.002, np.float32)
        terrain.paint_slope(canvas, light, self.land.near, bank, 0.1, 0.0, self.sun)
        if self.scene.plants == "forest":
            self._forest(horizon + 0.012)
        water.paint_lake(canvas, rng, light, horizon + 1 / GRID, shore)
        self._near_shore(shore)

    def _sea(self) -> None:
        shore = water.shore_line(self.canvas, self.rng)
        water.paint_sea(self.canvas, self.rng, self.light, self.horizon, shore)
        self._near_shore(shore)
        if self.scene.plants == "forest":
            self._forest(0.90)

    def _near_shore(self, shore: Field) -> None:
        terrain.paint_slope(self.canvas, self.light, self.land.near, shore, 0.2, 0.0, self.sun)

    def _dry_land(self) -> None:
        relief = 0.022 if self.scene.land == "desert" else 0.012
        terrain.paint_ground(self.canvas, self.rng, self.light, self.land, self.horizon + 0.02, relief, self.sun)
        if self.course is not None:
            water.paint_river(self.canvas, self.light, self.land, self.horizon + 0.02, self.course)
            self._keep_off_river()
        if self.scene.plants == "forest":
            self._forest(self.horizon + 0.05)

    def _keep_off_river(self) -> None:
        assert self.course is not None
        middle = float(water.river_middle(self.course, np.float32(0.84), self.horizon + 0.02))
        self.free = [s for s in self.free if abs((s + 0.5) / NUM_SLOTS - middle) > 0.14]

    def _forest(self, base: float) -> None:
        heights = self.rng.choice([0.10, 0.125, 0.15], 15)
        for k, height in enumerate(heights.tolist()):
            things.paint_pine(
                self.canvas, self.light, (2 * k + 2) / GRID, base, height, self.sun, self.scene.land == "snow"
            )

    def _things(self) -> None:
        scene, rng = self.scene, self.rng
        near = scene.water in ("lake", "sea")
        if scene.cabin:
            middle = self._take(3)
            base = 0.9375 if near else float(rng.choice([0.8125, 0.875]))
            things.paint_cabin(self.canvas, self.light, middle, base)
        if scene.boat:
            things.paint_boat(self.canvas, self.light, self._take(2), self.horizon + float(rng.choice([4, 5])) / GRID)
        if scene.plants in ("pines", "trees", "cactus"):
            count = min(len(self.free), int(rng.integers(2, 5)))
            slots = rng.permutation(self.free)[:count]
            low, high = (28, 31) if near else (23, 31)
            places = sorted((int(rng.integers(low, high)), int(slot)) for slot in slots)
            for row, slot in places:
                self._plant((slot + 0.5) / NUM_SLOTS, row / GRID)

    def _take(self, count: int) -> float:
        """The middle of so many free neighbouring slots, which are then taken."""
        starts = [s for s in range(NUM_SLOTS - count + 1) if all(s + k in self.free for k in range(count))]
        start = int(self.rng.choice(starts))  # there is one: a cabin comes first, a boat second, and no boat on a river
        self.free = [s for s in self.free if not start <= s < start + count]
        return (start + count / 2) / NUM_SLOTS

    def _plant(self, x: float, base: float) -> None:
        height = float(self.rng.choice([0.8, 1.0])) * (0.16 + 0.38 * (base - 0.65))
        if self.scene.plants == "pines":
            things.paint_pine(self.canvas, self.light, x, base, height * 1.1, self.sun, self.scene.land == "snow")
        elif self.scene.plants == "trees":
            crown = self.land.crowns[self.rng.integers(len(self.land.crowns))]
            things.paint_tree(self.canvas, self.light, x, base, height, self.sun, crown)
        else:
            things.paint_cactus(self.canvas, self.light, x, base, height * 0.9, self.sun)


def paint_scene(scene: Scene, rng: np.random.Generator, size: int = 128) -> NDArray[np.uint8]:
    """A picture of the scene, uint8 (size, size, 3); what the words leave open is random."""
    return Painter(scene, rng, size).paint()
