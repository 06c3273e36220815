"""Models from elsewhere, and models for elsewhere: the same U-Net under other names."""
