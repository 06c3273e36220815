"""From noise to images: ancestral sampling and DDIM, in blocks with seeds of their own."""
