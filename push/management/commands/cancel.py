"""`manage.py cancel ID`: cancel a push."""

import sys
from argparse import ArgumentParser
from typing import Any, ClassVar

from imgo_site.names import INT64_MAX, check_number
from push.accept.cancel import cancel_push
from push.management import local_api
from push.management.console import ImgoCommand, add_json
from push.status.phrases import counted


class Command(ImgoCommand):
    """Command that cancels a push."""

    help = (
        "Cancel what is still scheduled or pending of a push, whoever has pushed it. Sessions that "
        "have the message are told to take it back if they ask for that. Exit status 1 if it "
        "came too late for all."
    )
    examples: ClassVar = ("1043",)
    data: ClassVar = ('{"id": "1043", "state": "partly", "cancelled": 1, "too_late": 1}',)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the id of the push, and `--json`."""
        parser.add_argument("id", help="the id that the push was answered with")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Cancel, and print the outcome."""
        number = check_number(options["id"], "A push's id", lowest=1, highest=INT64_MAX)
        if local_api.is_embedded():
            outcome = local_api.call("DELETE", local_api.path_of("pushes", str(number)))
        else:
            done = cancel_push(number)
            outcome = {
                "id": str(done.message_id),
                "state": done.state,
                "cancelled": done.cancelled,
                "too_late": done.too_late,
            }
        if options["json"]:
            self.print_json(outcome)
        else:
            self.stdout.write(_sentence(outcome))
        if outcome["state"] == "too_late":
            sys.exit(1)


def _sentence(result: dict[str, Any]) -> str:
    name, cancelled, late = f"Push {result['id']}", result["cancelled"], result["too_late"]
    if not cancelled + late:
        outcome = "is cancelled" if result["state"] == "cancelled" else "was sent already"
        return f"{name} {outcome}."
    return f"{name}: cancelled for {counted(cancelled, 'key')}, too late for {late}."
