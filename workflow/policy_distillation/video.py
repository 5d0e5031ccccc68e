"""Video files, by the ffmpeg that the package imageio-ffmpeg brings along."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from .files import atomic_path

FORMATS = {
    # Equal pictures give equal files: one thread, and no name of the encoder's version or date inside.
    ".mp4": "-c:v libx264 -preset medium -crf 26 -threads 1 -pix_fmt yuv420p -movflags +faststart -fflags +bitexact "
    "-flags +bitexact -map_metadata -1",
    # One palette for all pictures, which are kept in memory until the last: hence GIF_SECONDS.
    ".gif": "-vf fps=15,split[a][b];[a]palettegen=max_colors=128[p];[b][p]paletteuse=dither=none:diff_mode=rectangle "
    "-loop 0 -threads 1",
}
"""What a file's ending asks ffmpeg for."""
GIF_SECONDS = 30
"""Most that a .gif may hold."""


class VideoError(ValueError):
    """A video that cannot be written. The message is one line for the user."""


def find_encoder(path: Path, seconds: float = 0.0) -> str:
    """The ffmpeg that is to write ``path``. Raises VideoError where there is none, or none for this."""
    if path.suffix == ".gif" and seconds > GIF_SECONDS:
        raise VideoError(f"{path}: a .gif holds at most {GIF_SECONDS} seconds of play; add --seconds, or write an .mp4")
    if path.suffix not in FORMATS:
        raise VideoError(f"{path}: no such format; allowed endings: {', '.join(FORMATS)}")
    try:
        import imageio_ffmpeg

        ffmpeg: str = imageio_ffmpeg.get_ffmpeg_exe()
        return ffmpeg
    except (ImportError, RuntimeError) as error:
        raise VideoError(f"{path}: no video encoder ({error}); try: pip install imageio-ffmpeg") from None


def write_video(pictures: Iterator[Image.Image], path: Path, rate: int) -> None:
    """Write RGB pictures of one size, ``rate`` a second, whole or not at all. Raises VideoError."""
    ffmpeg = find_encoder(path)
    first = next(pictures)
    width, height = (side - side % 2 for side in first.size)  # H.264 halves the resolution of colours
    source = f"-f rawvideo -pix_fmt rgb24 -s {first.width}x{first.height} -r {rate} -i -".split()
    crop = [] if path.suffix == ".gif" else ["-vf", f"crop={width}:{height}:0:0"]
    with atomic_path(path) as temporary:
        command = [ffmpeg, "-y", "-v", "error", *source, *crop, *FORMATS[path.suffix].split(), str(temporary)]
        encoder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert encoder.stdin is not None
        assert encoder.stderr is not None
        try:
            encoder.stdin.write(first.tobytes())
            for picture in pictures:
                encoder.stdin.write(picture.tobytes())
            encoder.stdin.close()
        except BrokenPipeError:
            pass  # it says why below
        except BaseException:
            encoder.kill()
            raise
        finally:
            complaint = encoder.stderr.read().decode(errors="replace").strip()
            encoder.wait()
        if encoder.returncode:
            raise VideoError(f"{path}: {Path(ffmpeg).name} failed: {complaint.splitlines()[-1] if complaint else '?'}")
