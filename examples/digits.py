"""Draw ten of each digit with a trained model, and let an independent judge read them.

    python examples/digits.py runs/digits

`make demo` trains that run first. Written beside the model: digits.png, ten rows of ten.
"""

import sys
from pathlib import Path

import diffussm
from diffussm.evaluation.digits import score_digits
from diffussm.generation import picture_grid, to_uint8, write_png

CLASSES, EACH = 10, 10


def main(run: Path) -> None:
    model = diffussm.load(run)
    labels = [label for label in range(CLASSES) for _ in range(EACH)]
    images = model.sample(seeds=range(CLASSES * EACH), labels=labels)
    score = score_digits(images, labels)

    picture = run / "digits.png"
    captions = [model.config.class_names[label] for label in labels]
    write_png(picture, picture_grid(to_uint8(images), captions, EACH))

    print(f"""
{CLASSES * EACH} digits in {picture}
recognised by a classifier trained on real digits alone: {score.recognised:.0%}
    (the same classifier recognises {score.judge_accuracy:.1%} of real digits it has not seen)
distance to the nearest real digit: {score.distance:.2f}; between real digits: \
{score.real_distance:.2f}
    ({score.copies} of {CLASSES * EACH} are closer to a real digit than any two real ones are)

Look at the picture, then try:
    diffussm sample {run} --out sevens.png --classes 3,7 --sampler ddim --steps 50 --guidance 2
    diffussm info {run}
    diffussm train digits --out runs/patches --set model.patch_size=2 --set model.hourglass_ratio=1
with the commands in .venv/bin, or after: source .venv/bin/activate""")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/digits.py RUN_FOLDER, after: diffussm train digits")
    main(Path(sys.argv[1]))
