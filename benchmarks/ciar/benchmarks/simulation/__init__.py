"""Pictures in simulated time: the product's own session and decoding loop, with times that a model gives."""
