"""Opening: the settings' store is found by name, and nothing nobody chose is loaded."""

from __future__ import annotations

import importlib
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from eyewall.core.opening import STORES, keyring_for, open_store
from eyewall.core.store import PrincipalIndex, Scan
from eyewall.crypto.key_file import rotate_keys
from eyewall.crypto.keyring import Key
from eyewall.errors import ConfigurationError, MissingDriverError, WeakSecretError
from eyewall.settings import Settings
from eyewall.testing.check_kit import new_record

SECRET: Final = "Zq3vT7yB1nM5kJ9hG2fD4sA6pO8iU0wE"
OLDER: Final = "mR8cX2bN6vL0zQ4wE9tY3uI7oP1aS5dF"
NEEDS_A_SECRET: Final = (
    {"backend": "redis"},
    {"backend": "valkey"},
    {"backend": "mongodb"},
    {"backend": "cookie"},
    {"url": "sqlite:///sessions.db"},
)


def clock() -> datetime:
    """A time that stands still."""
    return datetime(2026, 11, 20, 12, tzinfo=UTC)


def id_of(secret: str) -> str:
    """The ID of the key that ``secret`` makes."""
    return Key(secret.encode()).id


# --- stores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["memory", "file"])
async def test_a_backend_opens_its_store(backend: str, tmp_path: Path) -> None:
    """The two that need no server must work with nothing but their name."""
    options: dict[str, Any] = {"path": tmp_path / "state"} if backend == "file" else {}
    store = open_store(Settings(backend=backend, **options), clock)
    assert f"{type(store).__module__}:{type(store).__name__}" == STORES[backend]
    assert await store.load(bytes(32)) is None
    await store.close()


def run(program: str, *arguments: str) -> str:
    """What ``program`` prints in a Python of its own."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


OPEN_AND_LIST: Final = """
import sys
from datetime import UTC, datetime
from eyewall.core.opening import open_store
from eyewall.settings import Settings
def loaded():
    drivers = ("redis", "sqlalchemy", "pymongo", "cryptography", "dotenv")
    return sorted(name for name in sys.modules if name in drivers or name.startswith("eyewall.stores."))
assert loaded() == [], loaded()
open_store(Settings(backend="memory"), lambda: datetime.now(UTC))
print(*loaded())
"""


def test_no_driver_is_loaded_for_a_store_nobody_chose() -> None:
    """A start must not cost the time and memory of five drivers, nor fail for one that is broken."""
    own = "eyewall.stores.listening eyewall.stores.local_announcer eyewall.stores.memory"
    assert run(OPEN_AND_LIST) == own


OPEN_WITHOUT: Final = """
import sys
from datetime import UTC, datetime
sys.modules[sys.argv[1]] = None  # as if it were not installed
from eyewall.core.opening import open_store
from eyewall.settings import Settings
try:
    open_store(Settings(url=sys.argv[2]), lambda: datetime.now(UTC))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("library", "url", "extra"),
    [
        ("redis", "redis://localhost", "redis"),
        ("redis", "valkey://localhost", "redis"),
        ("pymongo", "mongodb://localhost", "mongodb"),
        ("sqlalchemy", "sqlite:///sessions.db", "sqlite"),
        ("sqlalchemy", "postgresql+asyncpg://localhost/shop", "postgres"),
        ("sqlalchemy", "mysql://localhost/shop", "mysql"),
        ("sqlalchemy", "mariadb://localhost/shop", "mysql"),
    ],
)
def test_a_missing_driver_is_named_with_its_extra(library: str, url: str, extra: str) -> None:
    """`ModuleNotFoundError: redis` tells nobody which command installs the right version of it."""
    answer = run(OPEN_WITHOUT, library, url)
    assert answer.startswith("MissingDriverError")
    assert f"pip install 'eyewall[{extra}]'" in answer


async def test_the_cookie_backend_keeps_nothing_here() -> None:
    """Its sessions travel in the cookie: whatever is written is gone from here at once."""
    store = open_store(Settings(backend="cookie"), clock)
    assert await store.load(bytes(32)) is None
    assert await store.sweep(clock(), 10) == 0
    assert not isinstance(store, PrincipalIndex | Scan)


# --- stores of other packages ---------------------------------------------------------------------------

PLUGIN: Final = '''
class ShelfStore:
    """A stranger's store."""

    def __init__(self, url, now):
        self.opened = (url, now)

    @classmethod
    def from_settings(cls, settings, clock):
        return cls(settings.url, clock())
'''


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package, as far as Python can tell, that offers three stores."""
    (tmp_path / "shelf_store.py").write_text(PLUGIN)
    (tmp_path / "dusty_store.py").write_text("import a_driver_nobody_has.cursors\n")
    (tmp_path / "empty_store.py").write_text("class Nothing: ...\n")
    (tmp_path / "shelf-1.0.dist-info").mkdir()
    (tmp_path / "shelf-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n"
    )
    (tmp_path / "shelf-1.0.dist-info" / "entry_points.txt").write_text(
        "[eyewall.stores]\nshelf = shelf_store:ShelfStore\n"
        "dusty = dusty_store:Dusty\nempty = empty_store:Nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    "options", [{"backend": "shelf"}, {"url": "shelf://top"}, {"backend": "shelf", "url": "shelf+tls://top"}]
)
def test_an_installed_package_can_bring_a_store(options: dict[str, Any]) -> None:
    """A store we do not ship must need no change of ours."""
    store: Any = open_store(Settings(**options), clock)
    assert store.opened == (options.get("url"), clock())


@pytest.mark.usefixtures("plugins")
def test_a_plug_in_without_its_own_driver_says_which() -> None:
    """A stranger's missing library is not one of our extras."""
    with pytest.raises(MissingDriverError, match="the dusty store needs the library 'a_driver_nobody_has'"):
        open_store(Settings(backend="dusty"), clock)


@pytest.mark.usefixtures("plugins")
def test_a_plug_in_that_is_no_store_is_refused_by_name() -> None:
    """An AttributeError at the first request would look like a fault of the application."""
    with pytest.raises(ConfigurationError, match=r"empty_store:Nothing.*has no from_settings"):
        open_store(Settings(backend="empty"), clock)


def test_a_package_that_was_removed_is_refused_by_name() -> None:
    """Falling back to another store would sign everybody out, and leave their sessions behind."""
    with pytest.raises(ConfigurationError, match="backend='shelf' is no store"):
        Settings(backend="shelf")


# --- key rings ------------------------------------------------------------------------------------------


def test_the_application_s_own_secret_goes_first() -> None:
    """An application that has a cookie_secret must not get a second one to look after."""
    ring = keyring_for(Settings(cookie_secret=OLDER), cookie_secret=SECRET)
    assert [key.id for key in ring] == [id_of(SECRET)]


def test_tornados_key_version_is_honoured() -> None:
    """Tornado signs with that version; signing with another one breaks a roll-out half way."""
    ring = keyring_for(Settings(), cookie_secret={1: OLDER, 2: SECRET}, key_version=1)
    assert [key.id for key in ring] == [id_of(OLDER), id_of(SECRET)]


@pytest.mark.parametrize("options", [{"backend": "redis"}, {"backend": "memory"}, {}])
def test_the_settings_secret_is_used_for_every_backend(options: dict[str, Any]) -> None:
    """An operator who sets the variable means it, also for a store that could do without."""
    assert keyring_for(Settings(cookie_secret=SECRET, **options)).current.id == id_of(SECRET)


def test_the_file_store_makes_its_secret_on_first_start(tmp_path: Path) -> None:
    """A first start needs no decision, and a restart signs nobody out."""
    settings = Settings(path=tmp_path / "state")
    ring = keyring_for(settings)
    assert stat.S_IMODE((tmp_path / "state" / "secret").stat().st_mode) == 0o600
    assert keyring_for(settings).current.id == ring.current.id
    assert keyring_for(Settings(), store_folder=tmp_path / "state").current.id == ring.current.id


def test_a_secret_file_holds_the_ring_of_any_store(tmp_path: Path) -> None:
    """Every store must be able to rotate, not only the one that has a folder."""
    path = tmp_path / "keys"
    rotate_keys(path, now=clock())
    first = keyring_for(Settings(backend="redis", secret_file=path)).current.id
    rotate_keys(path, now=clock())
    ring = keyring_for(Settings(backend="redis", secret_file=path))
    assert [key.id for key in ring] == [ring.current.id, first]
    assert ring.current.id != first


def test_a_secret_file_of_one_s_own_goes_before_the_folder_s(tmp_path: Path) -> None:
    """An operator who names a file means it."""
    rotate_keys(tmp_path / "keys", now=clock())
    settings = Settings(path=tmp_path / "state", secret_file=tmp_path / "keys")
    assert keyring_for(settings).current.id == id_of((tmp_path / "keys").read_text()[:43])
    assert not (tmp_path / "state").exists()


def test_a_secret_file_that_is_missing_is_not_made(tmp_path: Path) -> None:
    """Each server would make one of its own, and refuse the others' cookies."""
    with pytest.raises(ConfigurationError, match=f"eyewall new-key --file {tmp_path / 'keys'}"):
        keyring_for(Settings(secret_file=tmp_path / "keys"))
    assert list(tmp_path.iterdir()) == []


def test_the_memory_store_has_a_secret_of_its_process() -> None:
    """Its sessions end with the process; a constant would be everybody's secret."""
    settings = Settings(backend="memory")
    assert keyring_for(settings).current.id != keyring_for(settings).current.id


@pytest.mark.parametrize("options", NEEDS_A_SECRET)
def test_a_shared_store_without_a_secret_is_refused_with_the_fix(options: dict[str, Any]) -> None:
    """Each process with a secret of its own would refuse the other processes' cookies."""
    with pytest.raises(ConfigurationError, match="EYEWALL_COOKIE_SECRET") as caught:
        keyring_for(Settings(**options))
    assert "secrets.token_urlsafe(32)" in str(caught.value)


@pytest.mark.parametrize(
    "given", [{"cookie_secret": "__TODO:_GENERATE_YOUR_OWN_RANDOM_VALUE_HERE__"}, {"cookie_secret": ""}]
)
def test_a_weak_secret_never_gets_into_use(given: dict[str, str]) -> None:
    """Tornado takes any secret; the printed one of its demos is on thousands of servers."""
    with pytest.raises(ConfigurationError):
        keyring_for(Settings(), cookie_secret=given["cookie_secret"])
    with pytest.raises(ConfigurationError):
        keyring_for(Settings(**given))  # type: ignore[arg-type]


def test_a_weak_secret_in_the_file_is_refused(tmp_path: Path) -> None:
    """A file somebody filled by hand is checked like any other source."""
    (tmp_path / "secret").write_text("a" * 43)
    (tmp_path / "secret").chmod(0o600)
    with pytest.raises(WeakSecretError, match=f"{tmp_path / 'secret'}, line 1: the secret repeats"):
        keyring_for(Settings(path=tmp_path))


async def test_sessions_move_from_the_old_store_to_the_new_one(tmp_path: Path) -> None:
    """Changing one setting moves a site to another store, and signs nobody out."""
    old = open_store(Settings(url=f"file://{tmp_path}/old"), clock)
    record = new_record(clock)
    await old.create(record)
    both = open_store(Settings(url=f"file://{tmp_path}/new", migrate_from=f"file://{tmp_path}/old"), clock)
    assert await both.load(record.digest) == record
    await both.close()
    await old.close()
