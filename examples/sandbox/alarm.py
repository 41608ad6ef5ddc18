"""An alarm on every variant of a SageMaker endpoint in the sandbox, over SNS to a hook, by boto3 alone.

python examples/sandbox/alarm.py churn < settings.json > alerts.yaml    # makes topic and alarms; prints who is believed
python examples/sandbox/alarm.py churn --hook http://127.0.0.1:8080/hooks/cloudwatch < settings.json  # when it listens

Run it again when the endpoint has other variants: what is there already stays.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout, from wherever this is called

from demo.addresses import sns_source

TOPIC = "lockstep-alarms"


def alarm(endpoint: str, variant: str, topic: str) -> dict[str, Any]:
    """More than half of a variant's answers are errors in one minute of the last three."""
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
    return {
        "AlarmName": f"{endpoint}-{variant}-errors",
        "Namespace": "AWS/SageMaker",
        "MetricName": "InvocationModelErrors",
        "Dimensions": dimensions,
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 3,
        "DatapointsToAlarm": 1,
        "Threshold": 0.5,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
        "AlarmActions": [topic],
        "OKActions": [topic],
    }


def main() -> int:
    """Read settings, print YAML; one line and status 1 for what is no sandbox's settings or no endpoint of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("endpoint", help="name of the endpoint")
    parser.add_argument("--hook", metavar="URL", help="subscribe this address, which must be listening")
    options = parser.parse_args()
    try:
        printed = json.load(sys.stdin)
        aws = printed["aws"]
        connection = {
            "endpoint_url": aws["endpoint_url"],
            "region_name": aws["region"],
            "aws_access_key_id": aws["access_key_id"],
            "aws_secret_access_key": aws["secret_access_key"],
            "config": Config(connect_timeout=5, read_timeout=60),
        }
    except (ValueError, KeyError, TypeError):
        sys.stderr.write("alarm: standard input holds no settings of a sandbox with aws: python -m sandbox --json\n")
        return 1
    sns, cloudwatch, sagemaker = (boto3.client(name, **connection) for name in ("sns", "cloudwatch", "sagemaker"))
    try:
        variants = sagemaker.describe_endpoint(EndpointName=options.endpoint)["ProductionVariants"]
    except ClientError as error:
        sys.stderr.write(f"alarm: {error.response['Error']['Message']}\n")
        return 1
    topic = sns.create_topic(Name=TOPIC, Attributes={"SignatureVersion": "2"})["TopicArn"]
    for variant in variants:
        cloudwatch.put_metric_alarm(**alarm(options.endpoint, variant["VariantName"], topic))
    if options.hook:
        sns.subscribe(TopicArn=topic, Protocol=urlsplit(options.hook).scheme, Endpoint=options.hook)
    else:
        sys.stdout.write(yaml.safe_dump({"sources": {"cloudwatch": sns_source(printed, [topic])}}, sort_keys=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
