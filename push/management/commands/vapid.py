"""`manage.py vapid`: make the key pair of Web Push."""

from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from imgo_site.conf import conf
from push.devices.providers.select import subject_problem
from push.devices.providers.vapid import new_private_key, public_key_of, read_private_key
from push.management.console import ImgoCommand, add_json


class Command(ImgoCommand):
    """Command that makes a key pair, or shows the public key of the one in the settings."""

    help = (
        "Make a key pair for Web Push (VAPID), and print the settings to keep. The private key is "
        "stored nowhere. With --public: print the public key of WEBPUSH_PRIVATE_KEY instead."
    )
    examples: ClassVar = ("--subject mailto:push@example.com", "--public")
    data: ClassVar = (
        '{"private_key": "…", "public_key": "BP…", "subject": "mailto:push@example.com"}',
        '{"public_key": "BP…"}',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the contact, and what to print."""
        parser.add_argument(
            "--subject",
            default="",
            help="your contact for push services, such as mailto:push@example.com",
        )
        parser.add_argument("--public", action="store_true", help="only show the public key")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print the new keys, or the public one."""
        if options["public"]:
            self._show_public(as_json=options["json"])
            return
        subject = options["subject"]
        if subject and (problem := subject_problem(subject)):
            raise CommandError(f"--subject {problem}.", returncode=2)
        private = new_private_key()
        public = public_key_of(read_private_key(private))
        if options["json"]:
            pair = {"private_key": private, "public_key": public, "subject": subject}
            self.print_json(pair)
            return
        self.stdout.write(f"IMGO_WEBPUSH_PRIVATE_KEY={private}")
        self.stdout.write(f"IMGO_WEBPUSH_SUBJECT={subject or 'mailto:YOUR-ADDRESS'}")
        self.stdout.write(
            f"# Public key: {public}\n"
            "# Keep the private key: with another one, all browsers must subscribe again."
        )

    def _show_public(self, *, as_json: bool) -> None:
        if not conf.WEBPUSH_PRIVATE_KEY:
            raise CommandError("WEBPUSH_PRIVATE_KEY is not set.")
        try:
            public = public_key_of(read_private_key(conf.WEBPUSH_PRIVATE_KEY))
        except ValueError as error:
            raise CommandError(f"WEBPUSH_PRIVATE_KEY cannot be used: {error}.") from None
        if as_json:
            self.print_json({"public_key": public})
        else:
            self.stdout.write(public)
