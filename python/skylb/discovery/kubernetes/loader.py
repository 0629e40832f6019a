"""The library's reader of a kubeconfig, with our way to run its credential helper. It imports the library."""

import json
from typing import Any

from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.exec_provider import ExecProvider
from kubernetes_asyncio.config.kube_config import FileOrData, KubeConfigLoader

from skylb.discovery.kubernetes.helper import HelperError, ask


class Loader(KubeConfigLoader):
    """Takes credentials from a kubeconfig.

    It asks a helper anew each time: SkyLB reads credentials at the start, and after a 401.
    """

    @property
    def server(self) -> str:
        """The URL of the API server; empty where it is left out."""
        return str((self._cluster and self._cluster.safe_get("server")) or "").rstrip("/")

    async def load_from_exec_plugin(self) -> bool:
        """Runs the helper; whether there are credentials.

        Raises:
            HelperError: it does not answer, or answers something else.
            ConfigException: the file does not say how it is run.
        """
        if self._user is None:
            return False
        helper = ExecProvider(self._user["exec"])
        answer = await ask(helper.args, helper.env, str(helper.api_version))
        try:
            self._take(json.loads(answer), str(helper.api_version))
        except (ConfigException, ValueError, KeyError, TypeError, OSError) as error:
            why = f"the credential helper {helper.args[0]} answers no credentials"
            raise HelperError(f"{why}: {' '.join(str(error).split())}") from error
        return True

    def _take(self, answer: Any, expected: str) -> None:
        """Takes what a helper answers.

        Raises:
            ConfigException: it lacks something.
        """
        if answer["apiVersion"] != expected:
            raise ConfigException(f"its apiVersion is {answer['apiVersion']}: expected {expected}")
        status = answer["status"]
        if "token" in status:
            self.token = f"Bearer {status['token']}"
        if "clientCertificateData" in status and "clientKeyData" in status:
            self.cert_file: str | None = _file(status, "clientCertificateData")
            self.key_file: str | None = _file(status, "clientKeyData")
        elif "token" not in status:
            raise ConfigException("expected a token, or a certificate with its key")


def _file(status: dict[str, Any], name: str) -> str | None:
    """The path of a file with what the helper answers under that name."""
    return FileOrData(status, None, data_key_name=name, base64_file_content=False).as_file()
