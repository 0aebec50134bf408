"""The stage that ends a run: its page."""

from typing import Any

from rich.console import Console

import tfctr
from tfctr.report import page
from tfctr.report.settings import Settings
from tfctr.stages import Run, Stage

REPORT = "report.html"


class Report(Stage):
    """`report.html` in a run's folder, about the evaluated run.

    Args:
        run: of the page.
        settings: how its config came about. Defaults to the config itself.

    Raises:
        ConfigError: from `check`, a library of the page is not installed.
    """

    name = "report"

    def __init__(self, run: Run, settings: Settings | None = None) -> None:
        self.run = run
        self.settings = settings or Settings.of_config(run.config)
        self.folder = run.folder
        self.path = self.folder / REPORT
        self.reads = (run.evaluated, run.baselines)

    @property
    def made_from(self) -> Any:
        exported = self.run.exported
        costs = exported.key() if exported.is_done() else None  # a request's time is on the page
        return [tfctr.__version__, costs, self.settings.differences()]

    def check(self) -> None:
        page.check_installed()

    def make(self, console: Console) -> dict[str, Any]:
        from tfctr.report.runs import write_runs

        console.print(f"[bold]report[/] -> {self.path}", soft_wrap=True)
        write_runs([self.run], [self.settings], self.path)
        return {}
