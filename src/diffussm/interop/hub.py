"""An exported folder to the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from diffussm.checkpoint import one_line

LOG_IN = "log in by `hf auth login`, or set HF_TOKEN"


def push(folder: str | Path, repository: str, *, private: bool = False, api: Any = None) -> str:
    """Upload an exported folder as the model `repository` (OWNER/NAME); returns its address.

    private    for a repository that does not exist yet
    api        stands in for `huggingface_hub.HfApi()`
    Raises ValueError for a folder that is no export, and, at once, where the Hub cannot be reached
    or does not let this user in.
    """
    folder = Path(folder)
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} is no exported folder: it has no model_index.json")
    from huggingface_hub import HfApi, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if is_offline_mode():
        raise ValueError(f"HF_HUB_OFFLINE is set: {folder} is not pushed; unset it to push")
    api = HfApi() if api is None else api
    try:
        api.whoami()  # one request, which is not repeated: whoever is offline is told now
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add the model")
    except LocalTokenNotFoundError:
        raise ValueError(f"no token for the Hub: {LOG_IN}") from None
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is no name OWNER/NAME ({one_line(error)})") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status == 401:
            raise ValueError(f"the Hub does not know this token: {LOG_IN}") from None
        if status == 403:
            raise ValueError(f"this token may not write to {repository}: {LOG_IN}") from None
        raise ValueError(f"the Hub refused {repository} ({one_line(error)})") from None
    except (OSError, *_connection_errors()) as error:
        raise ValueError(f"the Hub cannot be reached ({one_line(error)})") from None
    return str(address)


def _connection_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.utils import httpx

    return (httpx.HTTPError,)
