"""Pictures of samples."""

import io

from PIL import Image
from torch import Tensor

from ganbench.data import Data


def picture(x: Tensor, data: Data) -> Image.Image:
    """Images [N, C, H, W] as a grid eight wide; points [N, d] over some real ones."""
    return grid(x.cpu()) if x.dim() == 4 else scatter(x.cpu(), data.test[:2000].cpu())


def grid(x: Tensor, columns: int = 8) -> Image.Image:
    """uint8 images [N, C, H, W], N a multiple of `columns`."""
    n, c, h, w = x.shape
    tiled = x.view(n // columns, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(n // columns * h, columns * w, c)
    return Image.fromarray(tiled.expand(-1, -1, 3).contiguous().numpy() if c == 3 else tiled[..., 0].numpy())


def scatter(fake: Tensor, real: Tensor) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reach = 1.3 * float(real.abs().max())
    figure = Figure(figsize=(2.56, 2.56), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set_axis_off()
    axes.scatter(*real[:, :2].T, s=2, c="#b8bec8", linewidths=0)
    axes.scatter(*fake[:, :2].T.clamp(-10 * reach, 10 * reach), s=5, c="#c2410c", linewidths=0)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")
