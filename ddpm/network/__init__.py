"""The U-Net of the paper, and the file that a trained one is kept in."""
