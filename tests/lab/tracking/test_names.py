"""The names of curves in MLflow."""

from lab.tracking.names import charted, key

CURVES = ("loss", "gradient_norm", "learning_rate", "images_per_second", "snapshot.fid", "snapshot.is")
NUMBERS = ("classifier.fid", "neighbours.median", "snapshots.best_fid")


def section(name: str) -> tuple[bool, str, str]:
    """The place of a chart as MLflow's pages order them: those without a section last."""
    head, slash, last = name.rpartition("/")
    return (not slash, head, last)


def test_the_chart_of_the_loss_is_the_first() -> None:
    names = [charted(key) for key in (*NUMBERS, *CURVES)]
    assert min(names, key=section) == "train/loss"


def test_curves_have_sections_and_numbers_keep_their_names() -> None:
    assert all("/" in charted(key) for key in CURVES)
    assert [charted(key) for key in NUMBERS] == list(NUMBERS)


def test_a_key_is_recovered_from_its_name_and_from_the_name_of_earlier_versions() -> None:
    assert [key(charted(one)) for one in (*CURVES, *NUMBERS)] == [*CURVES, *NUMBERS]
    assert [key(one) for one in CURVES] == list(CURVES)
