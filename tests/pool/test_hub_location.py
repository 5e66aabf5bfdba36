import pytest
from hub_server import HOSTILE

from lorauter_integrations.errors import PoolError
from lorauter_integrations.pool.hub import HubLocation


@pytest.mark.parametrize(
    ("text", "repo", "revision", "sub"),
    [
        ("hub:ann/colours", "ann/colours", "main", ""),
        (" hub:ann/colours@v1.2 ", "ann/colours", "v1.2", ""),
        ("hub:ann/colours/checkpoint-10/best", "ann/colours", "main", "checkpoint-10/best"),
        ("hub:ann/colours@refs%2Fpr%2F3/a/", "ann/colours", "refs/pr/3", "a"),
    ],
)
def test_location_is_read_and_written(text, repo, revision, sub):
    location = HubLocation.parse(text)
    assert location == HubLocation(repo, revision, sub)
    assert HubLocation.parse(str(location)) == location


@pytest.mark.parametrize(
    "text",
    [
        "ann/colours",
        "hub:colours",
        "hub:",
        "hub:ann/../colours",
        "hub:ann/..",
        "hub:a--b/c",
        "hub:ann/colours@",
        "hub:ann/col ours",
        "hub:ann/colours-",
        f"hub:ann/{'c' * 200}",
    ],
)
def test_what_is_no_location_is_an_error(text):
    with pytest.raises(PoolError, match="is not a location on the Hub"):
        HubLocation.parse(text)


@pytest.mark.parametrize("revision", ["..", "a%2F..%2Fb", "a%0Ab", "%2Fa"])
def test_revision_that_could_change_the_address_is_an_error(revision):
    with pytest.raises(PoolError, match="cannot be a revision of ann/colours"):
        HubLocation.parse(f"hub:ann/colours@{revision}")


@pytest.mark.parametrize("sub", HOSTILE)
def test_folder_that_a_user_must_not_name(sub):
    with pytest.raises(PoolError, match=r"cannot be a folder of ann/colours|is not a location"):
        HubLocation.parse(f"hub:ann/colours/{sub}/x")
