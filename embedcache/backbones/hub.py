"""What every use of the hub shares: names, pages, and its refusals as one line each. No torch and no transformers."""

import contextlib
from collections.abc import Iterator

from embedcache.backbones.known import did_you_mean
from embedcache.errors import InputError, MissingPackageError

OF_FAMILY = {"timm": "timm/"}
"""Families whose backbones are named `family:name`, and the organisation on the hub that holds their weights."""
UNREACHABLE = "is no folder here, not in the hub's cache, and the hub is offline or not reachable"


def hub_name(name: str) -> str:
    """The repository of a backbone's weights: `timm:resnet50` lies in `timm/resnet50`, other names are their own."""
    family, colon, rest = name.partition(":")
    return OF_FAMILY[family] + rest if colon and family in OF_FAMILY else name


def page(name: str) -> str:
    """Where a model is described, and where a gated one's licence is accepted."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{hub_name(name)}"


def need_hub(name: str) -> None:
    """Raise MissingPackageError unless huggingface_hub is installed."""
    try:
        import huggingface_hub  # noqa: F401 only a hub name needs this package
    except ImportError:
        raise MissingPackageError(
            f"{name!r} is no folder here, and a hub name needs huggingface_hub: pip install 'embedcache[cpu]'."
        ) from None


@contextlib.contextmanager
def one_line(name: str, revision: str | None, unreachable: str) -> Iterator[None]:
    """Within it, what the hub refuses is an InputError that says what to do.

    unreachable: what is said where the files are not on this machine and the hub can not be asked.
    """
    # of whichever HTTP library this version is built on
    from huggingface_hub import errors
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = f"{name!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        yield
    except HFValidationError:
        raise InputError(
            f"backbone {name!r} is neither a folder here nor a hub name such as facebook/dinov2-small"
            f"{did_you_mean(name) or '.'}"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise InputError(unreachable) from None
    except GatedRepoError:
        raise InputError(
            f"backbone {wanted} is gated: accept its licence at {page(name)}, then `hf auth login`."
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"backbone {name!r} has no revision {revision!r}; give a branch, a tag or a commit.") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"backbone {wanted} is no folder here and not on the hub; check the name (or `hf auth login`)"
            f"{did_you_mean(name) or '.'}"
        ) from None
    except HfHubHTTPError as e:
        raise InputError(
            f"backbone {wanted} could not be fetched: the hub answered {e.response.status_code}."
        ) from None
    except errors.HTTPError as e:  # type: ignore[attr-defined]  # of whichever HTTP library it is built on
        raise InputError(
            f"backbone {wanted}: the connection to the hub failed ({type(e).__name__}); run the same command again."
        ) from None
