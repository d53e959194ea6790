"""Mail: whether the mail server takes alerts as Alertmanager would send them."""

import smtplib
from pathlib import Path

import yaml

# Seconds for the connection and for each answer.
PATIENCE = 3.0

_TLS_PORT = "465"  # Alertmanager begins with TLS there


def complaints(alertmanager: Path) -> list[str]:
    """Return what is wrong with the mail servers that this configuration of Alertmanager names."""
    receivers = yaml.safe_load(alertmanager.read_text(encoding="utf-8"))["receivers"]
    mails = [mail for receiver in receivers for mail in receiver.get("email_configs", ())]
    servers = {(mail["smarthost"], mail["require_tls"]) for mail in mails}
    return [complaint for server in sorted(servers) if (complaint := _complaint(*server))]


def _complaint(smarthost: str, require_tls: bool) -> str:
    host, _, port = smarthost.rpartition(":")
    if port == _TLS_PORT:
        return ""
    try:
        with smtplib.SMTP(host.strip("[]"), int(port), timeout=PATIENCE) as server:
            server.ehlo()
            if not require_tls or server.has_extn("starttls"):
                return ""
    except (OSError, UnicodeError) as error:  # the latter of a name that no host can have, such as smtp..com
        return (
            f"smarthost={smarthost} in the file of ALERT_SECRET_FILE does not answer "
            f"({getattr(error, 'strerror', None) or error}): start it, or mend its address"
        )
    return (
        f"smarthost={smarthost} in the file of ALERT_SECRET_FILE offers no STARTTLS and will get no alert: "
        "write require_tls=false into the file, or name a server with TLS"
    )
