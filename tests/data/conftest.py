import pytest
from pictures import picture


@pytest.fixture
def folders(tmp_path):
    """A folder with two classes of three pictures: `cat/c0.png` ... `dog/d2.png`; `d2` is a copy of `d1`."""
    root = tmp_path / "pets"
    for i, name in enumerate(["cat/c0", "cat/c1", "cat/c2", "dog/d0", "dog/d1"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(root / f"{name}.png")
    (root / "dog/d2.png").write_bytes((root / "dog/d1.png").read_bytes())
    return root
