"""A window that shows pictures at the speed of the game. Tk comes with most Pythons; a display does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType

from PIL import Image


class NoDisplay(RuntimeError):
    """There is nowhere to show a window. The message is one line for the user."""


def show(pictures: Iterator[Image.Image], title: str, rate: float) -> None:
    """Show ``rate`` pictures a second until the last, or until the window is closed (also by Escape or q).

    Raises NoDisplay before the first picture is asked for, and whatever a picture raises; then the window is closed.
    """
    try:
        import tkinter

        from PIL import ImageTk
    except ImportError as error:
        raise NoDisplay(f"this Python has no Tk: {error}") from None
    try:
        root = tkinter.Tk(className="policy distillation")
    except tkinter.TclError as error:
        raise NoDisplay(str(error)) from None
    root.title(title)
    label = tkinter.Label(root, borderwidth=0)
    label.pack()
    for key in ("<Escape>", "q"):
        root.bind(key, lambda event: root.destroy())
    failed: list[BaseException] = []

    def fail(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        failed.append(error)
        root.destroy()

    root.report_callback_exception = fail  # Tk's own prints a traceback and leaves the window as it is
    start = time.monotonic()

    def show_next(number: int) -> None:
        picture = next(pictures, None)
        if picture is None:
            root.after(2000, root.destroy)  # the end stays in sight for a moment
            return
        photo = ImageTk.PhotoImage(picture, master=root)
        label.configure(image=photo)
        label.image = photo  # type: ignore[attr-defined]  # Tk itself holds no reference
        due = start + (number + 1) / rate
        root.after(max(1, round(1000 * (due - time.monotonic()))), show_next, number + 1)

    root.after(0, show_next, 0)
    root.mainloop()
    if failed:
        raise failed[0]
