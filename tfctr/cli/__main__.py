from tfctr.cli import app

app()
