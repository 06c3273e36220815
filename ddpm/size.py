"""The parameters of a network and the memory of its forward pass, in closed form: nothing is built or allocated.

The functions follow the modules layer by layer and need no torch, so they take milliseconds for a network of any size.
tests/test_size.py compares them with the modules.
"""

from dataclasses import dataclass, field

from ddpm.params import BasicNetwork, Classifier, Network, UNetNetwork

_FLOAT, _LONG = 4, 8  # bytes


@dataclass
class NetworkSize:
    """The parameters of a network, and the bytes of a forward pass in float32."""

    parameters: int = 0
    saved: int = 0  # for the backward pass, of each image
    saved_once: int = 0  # for the backward pass, whatever the number of images
    alive: int = 0  # at most at once, of each image, without a backward pass
    skips: list[int] = field(default_factory=list)  # floats of the feature maps for the way up

    def saved_for(self, images: int) -> int:
        """The bytes that a forward pass of some images keeps for its backward pass, without the parameters."""
        return images * self.saved + self.saved_once

    def conv(self, inputs: int, outputs: int, size: int = 3) -> None:
        """Add a convolution, or with size 1 a dense layer."""
        self.parameters += outputs * (inputs * size * size + 1)

    def norm(self, channels: int) -> None:
        """Add the weights and biases of a normalisation."""
        self.parameters += 2 * channels

    def save(self, floats: int) -> None:
        """Add what an image keeps for the backward pass."""
        self.saved += _FLOAT * floats

    def hold(self, floats: int) -> None:
        """Note what an image holds at once, beside the skips."""
        self.alive = max(self.alive, _FLOAT * (floats + sum(self.skips)))


def network_size(network: Network, image_channels: int, image_size: int, learned: bool, classes: int) -> NetworkSize:
    """The size of a network of ddpm/network for square images; `learned`: it also has outputs for the variance."""
    if isinstance(network, BasicNetwork):
        return _basic(network, image_channels, image_size)
    return _unet(network, image_channels, image_size, image_channels * (1 + learned), classes)


def _unet(settings: UNetNetwork, image_channels: int, image_size: int, outputs: int, classes: int) -> NetworkSize:
    """Follow `ddpm.network.unet.UNet` layer by layer."""
    size, first, embedding = NetworkSize(), settings.channels, 4 * settings.channels
    size.conv(first, embedding, 1)
    size.conv(embedding, embedding, 1)
    size.save(first + 3 * embedding)
    if settings.conditional:
        size.parameters += (classes + 1) * embedding
        size.saved += _LONG
    pixels = image_size**2
    size.conv(image_channels, first)
    size.save(image_channels * pixels)
    plan = [first * multiplier for multiplier in settings.multipliers]
    sides = [image_size >> level for level in range(len(plan))]
    width, skips = first, [first]
    size.skips.append(first * pixels)
    for level, (channels, side) in enumerate(zip(plan, sides, strict=True)):
        for _ in range(settings.blocks):
            _residual(size, width, channels, side, settings)
            if side in settings.attention:
                _attention(size, channels, side, settings)
            width = channels
            skips.append(width)
            size.skips.append(width * side**2)
        if level < len(plan) - 1:
            padded = side + (1 if settings.downsample == "asymmetric" else 2)
            size.conv(width, width)
            size.save(width * padded**2)
            size.hold(2 * width * padded**2)
            skips.append(width)
            size.skips.append(width * (side // 2) ** 2)
    _residual(size, width, width, sides[-1], settings)
    _attention(size, width, sides[-1], settings)
    _residual(size, width, width, sides[-1], settings)
    for level, (channels, side) in reversed(list(enumerate(zip(plan, sides, strict=True)))):
        for _ in range(settings.blocks + 1):
            size.skips.pop()
            _residual(size, width + skips.pop(), channels, side, settings, width)
            if side in settings.attention:
                _attention(size, channels, side, settings)
            width = channels
        if level > 0:
            size.conv(width, width)
            size.save(width * (2 * side) ** 2)
            size.hold(9 * width * side**2)
    size.norm(width)
    size.save(3 * width * pixels + 2 * settings.groups)
    size.hold(2 * width * pixels)
    size.conv(width, outputs)
    return size


def _residual(size: NetworkSize, inputs: int, outputs: int, side: int, settings: UNetNetwork, before: int = 0) -> None:
    """A residual block. On the way up its input is a copy, beside the feature map of width `before`."""
    pixels, embedding = side**2, 4 * settings.channels
    size.norm(inputs)
    size.conv(inputs, outputs)
    size.conv(embedding, outputs, 1)
    size.norm(outputs)
    size.conv(outputs, outputs)
    if inputs != outputs:
        size.conv(inputs, outputs, 1)
    # Each normalisation saves its input and two statistics for each group, SiLU its input, a convolution its input.
    size.save((3 * inputs + (4 if settings.dropout else 3) * outputs) * pixels + 4 * settings.groups + embedding)
    size.hold((before + max(2 * inputs + outputs, inputs + 3 * outputs)) * pixels)


def _attention(size: NetworkSize, channels: int, side: int, settings: UNetNetwork) -> None:
    pixels = side**2
    size.norm(channels)
    for _ in range(4):
        size.conv(channels, channels, 1)
    # The input, the normalised input, query, key and value, the result, and the logarithm of each softmax's sum.
    size.save((6 * channels + settings.heads) * pixels + 2 * settings.groups)
    size.saved_once += _FLOAT * 3 * channels**2  # the weights of query, key and value are concatenated
    size.hold(8 * channels * pixels)


def _basic(settings: BasicNetwork, image_channels: int, image_size: int) -> NetworkSize:
    """Follow `ddpm.network.basic.BasicUNet` layer by layer, with SiLU after the last convolution."""
    size = NetworkSize()
    widths = [settings.channels * multiplier for multiplier in settings.multipliers]
    down, up = [image_channels, *widths], [*reversed(widths), image_channels]
    for level in range(len(widths)):
        pixels = (image_size >> level) ** 2
        size.conv(down[level], down[level + 1], 5)
        size.save((down[level] + down[level + 1]) * pixels)  # the inputs of the convolution and of SiLU
        size.hold((down[level] + 2 * down[level + 1]) * pixels)
        if level < len(widths) - 1:
            size.save(down[level + 1] * pixels)  # the input of the pooling
            size.saved += _LONG * down[level + 1] * pixels // 4  # and its indices
            size.skips.append(down[level + 1] * pixels)
    for level in range(len(widths)):
        pixels = (image_size >> (len(widths) - 1 - level)) ** 2
        size.conv(up[level], up[level + 1], 5)
        size.save((up[level] + up[level + 1]) * pixels)
        size.hold((2 * up[level] + 2 * up[level + 1]) * pixels)
    return size


def classifier_size(settings: Classifier, image_channels: int, image_size: int, classes: int) -> NetworkSize:
    """The size of `ddpm.evaluation.extractor.ClassifierNetwork`."""
    size = NetworkSize()
    inputs, side = image_channels, image_size
    for width in (settings.channels, 2 * settings.channels, 4 * settings.channels):
        for _ in range(2):
            size.conv(inputs, width)
            size.parameters -= width  # no biases
            size.norm(width)
            size.save(inputs * side**2 + width * side**2)  # the inputs of the convolution and of the normalisation
            size.saved_once += _FLOAT * 2 * width  # its statistics
            size.hold((inputs + 2 * width) * side**2)
            inputs = width
        size.save(inputs * side**2)  # the output of the last ReLU
        side = -(-side // 2)
    size.conv(inputs, classes, 1)
    size.save(inputs)
    return size
