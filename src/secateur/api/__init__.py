"""What `import secateur` offers: the same as the command line, for scripts and notebooks."""

from secateur.api.compressing import compress
from secateur.api.finished import Run, open_run
from secateur.api.running import check, run
from secateur.pipelines.check import Checked
from secateur.pipelines.listener import Listener, Progress

__all__ = ["Checked", "Listener", "Progress", "Run", "check", "compress", "open_run", "run"]
