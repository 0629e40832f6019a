"""The library's reader of a kubeconfig, with our way to run its credential helper. It imports the library."""

import json
from typing import Any

from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.exec_provider import ExecProvider
from kubernetes_asyncio.config.kube_config import FileOrData, KubeConfigLoader

from skylb.discovery.kubernetes.helper import ask


class Loader(KubeConfigLoader):
    """Takes credentials from a kubeconfig.

    It asks a helper anew each time: SkyLB reads credentials at the start, and after a 401.
    """

    async def load_from_exec_plugin(self) -> bool:
        """Runs the helper; whether there are credentials.

        Raises:
            HelperError: it does not answer.
            ConfigException: it answers something else.
        """
        if self._user is None:
            return False
        helper = ExecProvider(self._user["exec"])
        expected = str(helper.api_version)
        answer = json.loads(await ask(helper.args, helper.env, expected))
        if answer["apiVersion"] != expected:
            raise ConfigException(
                f"the credential helper answers {answer['apiVersion']}: expected {expected}"
            )
        status = answer["status"]
        if "token" in status:
            self.token = f"Bearer {status['token']}"
        if "clientCertificateData" in status and "clientKeyData" in status:
            self.cert_file: str | None = _file(status, "clientCertificateData")
            self.key_file: str | None = _file(status, "clientKeyData")
        elif "token" not in status:
            raise ConfigException(
                "the credential helper answers neither a token nor a certificate with its key"
            )
        return True


def _file(status: dict[str, Any], name: str) -> str | None:
    """The path of a file with what the helper answers under that name."""
    return FileOrData(status, None, data_key_name=name, base64_file_content=False).as_file()
