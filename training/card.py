"""The template of the model card, filled in by `training.release`."""

TEMPLATE = """\
# {name}: a demonstration pair for CIAR

A cloud transformer, a one-layer drafter with Inter-Head and a VQ tokenizer that draw flat icons, 64×64, from prompts
such as "red filled heart on cream". Trained from scratch by `training/` in this repository; no other weights were used.

![samples](samples.png)

One picture for every concept, cloud model alone, guidance {guidance}, temperature {temperature}, seed 0, not
selected (first row: {first_prompts}; …).

## What it draws
{num_concepts} concepts: {concepts}.

Styles: filled, outline. Colours: {colours}. Grounds: {grounds}. Any word may be left out, order does not matter.

## What it cannot do
- Anything outside the list above: no counts, no positions, no two things in one picture, no text, no photographs.
- Concepts with many parts (bus, robot, cake) come out broken more often than simple ones, and the rarer the drawing in
  the sets, the worse. Some concepts were only drawn as strokes (link, wifi, scissors …): "filled" means little there.
- It shows a decoding method, not the state of image generation: it is as large as two CPU cores can train in about
  an hour.

## Parts
| part | size | file |
|---|---|---|
| cloud transformer ({shape}) | {cloud_size} parameters | cloud.safetensors (float16) |
| drafter, one layer | {drafter_size} parameters | drafter.onnx |
| tokenizer | {tokenizer_size} parameters (the decoder alone is shipped) | decoder.onnx |

Tokens: a cell without ink has one of 48 *ground tokens*, one for each pair of colours; a cell with ink has a *shape
token*, the same for all colours. The decoder takes its colours from a vote of the ground
cells nearby. The drafter is distilled
on the cloud's guided law (guidance {guidance}); this bundle {features}.

## Measured
Held-out captions, sequences written by cloud and drafter in turns (70 % of the tokens by the drafter), positions after
the prefix. Cells are coupled agreement / mean TV among the accepted. Printed by `python -m training export`.

{measured}

{notes}

## Recipe
Commands `data`, `tokenizer`, `cloud`, `drafter`, `radius`, `features`, `export` of `python -m training`, with
`training/configs/icons.toml`, seed {seed}, on
{machine}.
The tokenizer's codebook uses moving averages with restart of dead codes; the cloud uses Muon and AdamW, a
warm-up/stable/decay schedule, random input tokens and captions with words left out; see the modules of `training`.

## Data
{num_drawings} drawings of {num_sets} open icon sets from the npm package `@iconify/json` 2.2.535, chosen by consensus
within each concept and style. Held out: 5 % of the drawings, and the sets {held_out_sets} as a whole.
Share-alike, GPL and non-commercial sets, brands and logos were left out. With thanks to the authors:

| set | author | licence | drawings |
|---|---|---|---|
{credits}
"""
