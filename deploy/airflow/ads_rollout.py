"""A DAG for Airflow 3: the rollout of an ads model, a day at a time.

Copy this file into Airflow's folder of DAGs and set the paths. At 01:00 UTC it takes the step of
the day that has just ended. `tfctr rollout` ends with the exit status 75 where that day's rows are
not there yet: the task fails and is tried again, every half hour until the next day. Days that
Airflow missed are caught up in order, and a step that is done is passed over, so to run a task
twice does no harm.
"""

import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, CronDataIntervalTimetable

TFCTR = "/opt/tfctr/.venv/bin/tfctr"  # the installed command
FOLDER = "/srv/ads"  # holds rollout.yaml; work/ and saved_models/ are made there

with DAG(
    "ads_rollout",
    schedule=CronDataIntervalTimetable("0 1 * * *", timezone="UTC"),
    start_date=datetime.datetime(2024, 2, 25, tzinfo=datetime.UTC),  # the day before `start`
    catchup=True,
    max_active_runs=1,  # a step needs the one before
):
    BashOperator(
        task_id="step",
        bash_command=f"{TFCTR} rollout rollout.yaml --through {{{{ data_interval_start | ds }}}}",
        cwd=FOLDER,
        depends_on_past=True,
        retries=46,
        retry_delay=datetime.timedelta(minutes=30),
    )
