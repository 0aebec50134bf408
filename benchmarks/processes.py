"""Beam's options for processes of this machine."""


def processes(number: int) -> list[str]:
    """Of Beam's own runner, with so many processes."""
    return ["--direct_running_mode=multi_processing", f"--direct_num_workers={number}"]
