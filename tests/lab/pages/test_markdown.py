"""The report as Markdown."""

from dataclasses import replace
from pathlib import Path

import pytest

from ddpm.tables import Share
from lab.experiment.dvcfile import flatten
from lab.pages import contents, markdown
from lab.pages.contents import Report
from lab.pages.markdown import metrics_table
from tests.lab.pages.reports import BOUND, METRICS, PROTOCOL, REPORT, REPORTED, changed, measured, under

UNCHANGED = "All parameters are those of recipes/default.yaml."


def page(report: Report) -> str:
    return markdown.page(report, Path("/here/reports"))


def rows(text: str, key: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| `{key}` |")]


def test_the_table_of_metrics_has_the_floor_and_the_numbers_of_images() -> None:
    lines = metrics_table(METRICS, PROTOCOL).splitlines()
    assert lines[0] == "| metric | value | description |"
    assert lines[2].startswith("| `classifier.fid` | 1.936 |")
    assert lines[3] == "| `classifier.fid_floor` | 0.2815 | FID of 270 test images: the floor |"
    assert lines[5] == "| `classifier.is_real` | 7.366 | Inception Score of 1500 training images |"
    assert len(lines) == 6  # two of the head, four known metrics


def test_the_page_shows_metrics_neighbours_pictures_and_protocol() -> None:
    text = page(replace(REPORT, pictures={"samples": Path("/here/pictures/samples.png")}))
    assert metrics_table(METRICS, PROTOCOL) in text
    assert rows(text, "neighbours.smallest") == ["| `neighbours.smallest` | 20.54 | smallest distance of a sample |"]
    assert "![Samples](../pictures/samples.png)\n\n*Samples*" in text
    assert rows(text, "sample.steps") == ["| `sample.steps` | 50 |"]
    assert "`warnings`" not in text


def test_the_extractor_is_named() -> None:
    inception = {"inception": {"fid": 3.17}}
    assert "The extractor is a classifier trained on the training images." in page(REPORT)
    text = page(under(replace(REPORT, metrics=inception), extractor="inception"))
    assert "The extractor is torch-fidelity's InceptionV3, " in text
    assert rows(text, "inception.fid")


def test_the_model_its_training_and_the_sampler_are_summarised() -> None:
    report = changed(changed(REPORT, "network", kind="basic", conditional=True), "train", steps=0)
    text = page(changed(report, "sample", sampler="dpm_solver", guidance=0.5))
    assert (
        "\nA conditional basic U-Net with 701,345 parameters that predicts eps, not trained in this experiment. "
        "1500 samples with DPM-Solver++ in 50 steps and guidance 0.5.\n"
    ) in text


def test_training_is_summarised_by_its_first_and_last_loss() -> None:
    assert "1500 steps. The training loss was 0.7383 in the first steps and 0.08084 in the last (" in page(REPORT)


def test_the_bound_is_shown_with_its_parts_and_its_number_of_images() -> None:
    text = page(measured(REPORT, likelihood=BOUND))
    assert rows(text, "likelihood.bits_per_dim") == [
        "| `likelihood.bits_per_dim` | 3.751 | variational bound of 64 test images |"
    ]
    assert rows(text, "likelihood.rate")[0].startswith("| `likelihood.rate` | 1.78 |")
    assert rows(text, "likelihood.distortion")[0].startswith("| `likelihood.distortion` | 1.97 |")
    assert "`likelihood." not in page(REPORT)


def test_the_losses_of_the_final_weights_are_a_sentence_and_two_metrics() -> None:
    text = page(measured(REPORT, loss={"train": 0.076842, "test": 0.078791}))
    assert "the loss is 0.07684 on 270 training images and 0.07879 on as many test images." in text
    assert rows(text, "loss.train")[0].startswith("| `loss.train` | 0.07684 | training loss on 270 training images, ")
    assert rows(text, "loss.test")[0].startswith("| `loss.test` | 0.07879 |")


def test_every_class_is_a_row_with_its_name_and_its_agreement_if_measured() -> None:
    shares = [Share("cat|dog", 0.5, 0.256, 0.97), Share("two", 0.5, 0.744)]
    text = page(replace(REPORT, shares=shares))
    assert "| class | training images | samples | classified as their label |" in text
    assert "| cat\\|dog | 50.0% | 25.6% | 97.0% |\n| two | 50.0% | 74.4% | – |\n" in text
    without = page(replace(REPORT, shares=[replace(share, agreement=None) for share in shares]))
    assert "| class | training images | samples |\n" in without
    assert "| two | 50.0% | 74.4% |\n" in without


def test_the_title_has_the_first_settings_that_differ_from_the_default_recipe() -> None:
    def title(report: Report) -> str:
        return page(report).partition("\n")[0].replace("\\_", "_")

    few = changed(changed(REPORT, "train", learning_rate=1e-5), "sample", sampler="dpm_solver", steps=1)
    assert title(few) == "# digits 8×8, dpm_solver 1 step: train.learning_rate = 1e-05"
    many = changed(few, "train", steps=7, warmup=3, loss="vlb", learning_rate=1e-5)
    assert title(many) == (
        "# digits 8×8, dpm_solver 1 step: train.steps = 7, train.learning_rate = 1e-05, train.warmup = 3 "
        "… and 1 more setting"
    )
    assert title(changed(many, "train", seed=5)).endswith("… and 2 more settings")
    cited = replace(few, params={**few.params, "reported": REPORTED})
    assert title(cited).endswith("train.learning_rate = 1e-05")


@pytest.mark.parametrize("path", ["drawn", "pets/drawn.zip", "/home/me/drawn"])
def test_the_title_names_the_folder_or_the_zip_of_own_images(path: str) -> None:
    own = under(changed(REPORT, "data", source="folder", path=path), data="folder")
    assert page(own).startswith("# drawn 8×8, ddim 50 steps: ")


def test_the_best_snapshot_is_compared_with_the_final_model() -> None:
    text = page(measured(REPORT, snapshots={"best_fid": 1.25, "best_step": 900.0}))
    assert "The snapshot of step 900 has the smallest FID, 1.25. The FID of the final model is 1.936." in text
    assert "The snapshot" not in page(REPORT)


def test_a_model_that_was_not_trained_is_reported_as_such() -> None:
    text = page(replace(REPORT, points=[]))
    assert "The model was not trained in this experiment: train.steps is 0." in text
    assert "The loss changed" not in text


def test_unchanged_parameters_are_one_sentence_and_the_complete_yaml() -> None:
    text = page(REPORT)
    assert UNCHANGED in text
    assert "```yaml\ndata:\n  source: digits\n" in text


def test_only_changed_parameters_are_listed_with_their_defaults() -> None:
    params = {**REPORT.params, "train": {"seed": 0, "steps": 3, "betas": [0.5, 0.999], "new": 0}}
    defaults = {**REPORT.defaults, "train": {"seed": 0, "steps": 2500, "betas": [0.9, 0.999], "old": True}}
    text = page(replace(REPORT, params=params, defaults=defaults))
    assert rows(text, "train.steps") == ["| `train.steps` | 3 | 2500 |"]
    assert rows(text, "train.betas") == ["| `train.betas` | [0.5, 0.999] | [0.9, 0.999] |"]
    assert rows(text, "train.new") == ["| `train.new` | 0 | absent |"]
    assert rows(text, "train.old") == ["| `train.old` | absent | true |"]
    assert not rows(text, "data.source")


def test_published_numbers_stand_beside_those_measured_here() -> None:
    text = page(replace(REPORT, params={**REPORT.params, "reported": REPORTED | {"source": "A|B"}}))
    assert r"| metric | here | A\|B |" in text
    assert "| `classifier.fid` | 1.936 | 3.17 |" in text
    assert "| `inception.is` | not measured | 9.46 |" in text
    assert UNCHANGED in text  # they change no result


FIND = "```bash\nddpm find 0123456789ab\ngit checkout COMMIT  # the commit that the first command prints\n"


def test_the_page_ends_with_the_commands_that_reproduce_it() -> None:
    text = page(changed(REPORT, "train", steps=3))
    assert text.endswith(f"{FIND}ddpm recipe default\ndvc exp run \\\n  -S train.steps=3\n```\n")
    other = page(replace(REPORT, params={**REPORT.params, "new": {"key": 0}}))
    instruction = "At that commit, save all parameters above as params.yaml, then run the last command:"
    assert f"{instruction}\n\n{FIND}dvc repro\n```" in other


def test_provenance_has_digests_and_seeds() -> None:
    text = page(changed(REPORT, "train", seed=7))
    assert f"| training images, sha256 | {PROTOCOL['train_digest']} |" in text
    assert "| seeds | data 0, train 7, sample 0, evaluate 0 |" in text
    assert "| images pinned | yes, by their digest |" in text
    assert "| images pinned | no |" in page(under(REPORT, data_pinned=False))


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("a|b", r"a\|b"),
        ("<script>", "&lt;script&gt;"),
        ("a\nb\r\nc\rd", "a b c d"),
        ("`rm`", r"\`rm\`"),
        ("back\\slash", r"back\\slash"),
        ("a\\|b", r"a\\\|b"),
        ("*bold* _it_", r"\*bold\* \_it\_"),
        ("[x](http://y)", r"[x]\(http://y)"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_names_of_the_users_data_are_escaped_in_table_cells(name: str, cell: str) -> None:
    text = page(changed(REPORT, "train", init=name))
    assert rows(text, "train.init") == [f"| `train.init` | {cell} | null |"]
    protocol = page(under(REPORT, data=name, features=name))
    assert rows(protocol, "features") == [f"| `features` | {cell} |"]
    assert f"| images | {cell} |" in protocol


def test_no_name_of_the_users_data_ends_the_block_of_parameters() -> None:
    text = page(changed(REPORT, "train", init="x\n```\n# Not a heading\n```"))
    block = text[text.index("```yaml\n") + 8 :]
    fences = [line for line in block.splitlines() if line.startswith("```")]
    headings = [line for line in block.splitlines() if line.startswith("#")]
    assert fences == ["```", "```bash", "```"]
    assert headings == ["## Protocol", "## Provenance"]


def test_warnings_come_before_everything_else() -> None:
    text = page(under(REPORT, warnings=["few images of a|b"]))
    assert text.startswith(
        "# digits 8×8, ddim 50 steps: the settings of the default recipe\n\n"
        "A U-Net with 701,345 parameters that predicts eps, trained for 2500 steps. "
        "1500 samples with DDIM in 50 steps.\n\n"
        "> **Warning:** few images of a\\|b.\n\n## Metrics"
    )
    assert "Warning" not in page(REPORT)


def test_flatten_joins_keys_with_dots_and_keeps_lists_whole() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None}) == {
        "a.b.c": 1,
        "a.d": [1, {"e": 2}],
        "f": None,
    }


def test_every_described_metric_is_shown() -> None:
    metrics = {"classifier": dict.fromkeys(contents.METRICS, 1.0)}
    assert len(metrics_table(metrics, PROTOCOL).splitlines()) == 2 + len(contents.METRICS)
