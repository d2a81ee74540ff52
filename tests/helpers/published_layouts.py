"""Tiny trees in the layouts that data sets are published in, with the traps that they have.

``WRITERS``: by the name of a data set what writes its tree into an empty folder; ``SETTINGS``: what
such a small tree needs to be told. Images have odd sizes, and some are gray or have an alpha
channel.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Writer = Callable[[Path], None]

SIDE = 12
"""Pixels of the rectangles that stand for things, at least; `least` of regions in the tests."""


def text(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def picture(file: Path, number: int, size: tuple[int, int] = (33, 47), mode: str = "RGB") -> Path:
    """An image that differs from those of other numbers, of ``size`` (height, width)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file)
    return file


def rectangles(size: tuple[int, int], ground: int, *things: tuple[int, int, int]) -> np.ndarray:
    """A mask of ``ground`` with squares: number, left and upper edge."""
    mask = np.full(size, ground, dtype=np.uint8)
    for number, left, upper in things:
        mask[upper : upper + SIDE, left : left + SIDE] = number
    return mask


def palette(file: Path, mask: np.ndarray) -> Path:
    """A mask with a palette of colors, in which places and gray values differ."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made = Image.frombytes("P", (mask.shape[1], mask.shape[0]), mask.tobytes())
    made.putpalette([(37 * i + 90 * c) % 256 for i in range(256) for c in range(3)])
    made.save(file)
    return file


# --- masks --------------------------------------------------------------------------------------

ROAD, PERSON, CAR, BUS, VOID_ID, PLATE = 7, 24, 26, 28, 4, 34


def gta5(root: Path) -> None:
    """Five frames of two sizes, numbered, with the licence plate's number; and split.mat."""
    from scipy.io import savemat

    for i in range(1, 6):
        size = (33, 47) if i % 2 else (36, 50)
        mask = rectangles(size, ROAD, (CAR, 2, 2), (BUS if i % 2 else PERSON, 30, 2))
        mask[25:28, 5:9] = VOID_ID if i == 1 else PLATE
        picture(root / "images" / f"{i:05}.png", i, size)
        palette(root / "labels" / f"{i:05}.png", mask)
    numbers = {"trainIds": [1, 2, 3], "valIds": [4], "testIds": [5]}
    savemat(root / "split.mat", {k: np.array(v)[:, None] for k, v in numbers.items()})


def cityscapes(root: Path) -> None:
    """Two cities to learn and one to test, one mask as trainIds alone, and a test split's dummy."""
    n = 0
    for part, cities in (("train", ("aachen", "ulm")), ("val", ("lindau",)), ("test", ("bonn",))):
        for city in cities:
            for frame in range(2):
                name = f"{city}_{frame:06}_000019"
                picture(root / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png", 100 + n)
                mask = rectangles((33, 47), ROAD, (CAR, 2, 2), (PERSON, 20, 10))
                mask[:3] = 0 if part == "test" else 1
                folder = root / "gtFine" / part / city
                folder.mkdir(parents=True, exist_ok=True)
                if (city, frame) == ("ulm", 1):
                    ids = np.full(256, 255, dtype=np.uint8)
                    ids[[ROAD, CAR, PERSON]] = 0, 13, 11
                    made, ending = ids[mask], "labelTrainIds"
                else:
                    made, ending = mask, "labelIds"
                Image.fromarray(made).save(folder / f"{name}_gtFine_{ending}.png")
                Image.fromarray(mask).convert("RGB").save(folder / f"{name}_gtFine_color.png")
                n += 1


def bitmap(inside: np.ndarray) -> str:
    """A bitmap as Supervisely writes it: a compressed PNG whose alpha channel is the object."""
    pixels = np.zeros((*inside.shape, 4), dtype=np.uint8)
    pixels[inside] = 255
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return base64.b64encode(zlib.compress(content.getvalue())).decode()


def supervisely_person(root: Path) -> None:
    """Two folders: bitmaps and polygons of persons, a neutral one, and unmarked persons."""
    persons = [
        {"classTitle": "person_bmp", "bitmap": {"data": bitmap(np.ones((SIDE, SIDE), bool)),
                                                "origin": [3, 4]}},
        {"classTitle": "person_poly", "bitmap": None,
         "points": {"exterior": [[25, 5], [40, 5], [40, 20], [25, 20]],
                    "interior": [[[30, 10], [32, 10], [32, 12], [30, 12]]]}},
    ]  # fmt: skip
    neutral = {"classTitle": "neutral", "points": {"exterior": [[0, 25], [9, 25], [9, 30]]}}
    for i in range(4):
        image = picture(root / f"ds{1 + i % 2}" / "img" / f"p{i}.{'png' if i else 'jpg'}", 200 + i)
        made = {
            "size": {"height": 33, "width": 47},
            "tags": [{"name": "not-marked-people"}] if i == 3 else [],
            "objects": [*persons, neutral] if i != 2 else persons[:1],
        }
        name = image.name if i != 1 else image.stem
        text(image.parent.parent / "ann" / f"{name}.json", json.dumps(made))
    text(root / "meta.json", json.dumps({"classes": []}))


def baidu_person(root: Path) -> None:
    """Masks that JPEG has given gray edges, and images of other modes."""
    for i in range(4):
        mask = rectangles((33, 47), 0, (255, 8 + i, 9))
        folder = root / "clean_images"
        picture(folder / "images" / f"{i}.jpg", 300 + i, mode=("RGB", "L")[i % 2])
        (folder / "profiles").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "profiles" / f"{i}-profile.jpg", quality=30)


def several(root: Path) -> None:
    """What the settings of `several` name."""
    gta5(root / "gta5")
    supervisely_person(root / "persons")


# --- images and sounds with a class each ----------------------------------------------------------


def cifar10(root: Path) -> None:
    """Batches for Python, and two corruptions of the ten test images."""
    import pickle

    rng = np.random.default_rng(0)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        batch = {b"data": pixels, b"labels": list(range(10)), b"filenames": [b"a.png"] * 10}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (root / "CIFAR-10-C").mkdir()
    for kind in ("fog", "blur"):
        made = rng.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
        np.save(root / "CIFAR-10-C" / f"{kind}.npy", made)
    np.save(root / "CIFAR-10-C" / "labels.npy", np.arange(50, dtype=np.uint8) % 10)


def imagenet_c(root: Path) -> None:
    """One corruption in the folder of its archive, one beside it, and the clean images."""
    for number, folder in enumerate(("weather/fog/1", "weather/fog/5", "frost/3", "clean")):
        for i in range(4):
            name = f"n0{i % 2}/ILSVRC2012_val_{i}.JPEG"
            picture(root / folder / name, 700 + 10 * number + i, mode=("RGB", "L")[i == 3])


def spoken_digits(root: Path) -> None:
    """Two speakers, of whom each digit has a recording to learn and one to test."""
    from scipy.io import wavfile

    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for digit in range(10):
        for speaker in ("george", "theo"):
            for number in (0, 7):
                tone = np.sin(np.arange(900 + 50 * digit) * (0.1 + 0.2 * digit))
                sound = 9000 * tone + rng.normal(0, 90, len(tone))
                wavfile.write(root / f"{digit}_{speaker}_{number}.wav", 8000, sound.astype("<i2"))


# --- boxes and questions --------------------------------------------------------------------------


def coco2017(root: Path) -> None:
    """Category ids with a gap, an image without boxes, a crowd, an empty box, a gray image."""
    categories = [
        {"id": i, "name": name} for i, name in ((44, "bottle"), (1, "person"), (3, "car"))
    ]
    for part, first in (("train2017", 9), ("val2017", 139)):
        images, boxes = [], []
        for i in range(4):
            name = f"{first + i:012}.jpg"
            picture(root / part / name, first + i, (40, 60), ("RGB", "L")[i % 2])
            images.append({"id": first + i, "file_name": name, "height": 40, "width": 60})
            box = {"image_id": first + i, "iscrowd": 0, "category_id": (1, 3, 44)[i % 3]}
            boxes += [{**box, "bbox": [5.2, 4.0, 20.0, 30.5]}, {**box, "bbox": [50, 30, 5, 5]}]
        boxes = boxes[:6]  # none in the last image
        boxes.append({**boxes[0], "iscrowd": 1, "bbox": [0, 0, 60, 40]})
        boxes.append({**boxes[0], "bbox": [3.0, 3.0, 9.0, 0.0]})
        boxes = [{**box, "id": 900 - i} for i, box in enumerate(boxes)]
        made = {"images": images, "annotations": boxes, "categories": categories}
        text(root / "annotations" / f"instances_{part}.json", json.dumps(made))


def vqav2(root: Path) -> None:
    """Answers that are equal once they are normalized, and a question that none of ten agree on."""
    given = [
        ["yes"] * 10, ["Yes."] * 4 + ["no"] * 2 + ["no!"] * 4, ["2"] * 5 + ["two"] * 5,
        ["the cat"] * 3 + ["a cat"] * 3 + ["cat"] * 4, [f"thing {i}" for i in range(10)],
    ]  # fmt: skip
    for n, part in enumerate(("train2014", "val2014")):
        questions, answers = [], []
        for i, each in enumerate(given):
            image = i // 2
            picture(root / part / f"COCO_{part}_{image:012}.jpg", 500 + 100 * n + image)
            questions.append({"question_id": 10 * i, "image_id": image, "question": f"what {i} ?"})
            rows = [{"answer": a, "answer_confidence": "yes", "answer_id": 1} for a in each]
            answers.append({"question_id": 10 * i, "image_id": image, "answers": rows})
        head = f"v2_OpenEnded_mscoco_{part}"
        text(root / f"{head}_questions.json", json.dumps({"questions": questions}))
        made = {"annotations": answers[::-1]}
        text(root / f"v2_mscoco_{part}_annotations.json", json.dumps(made))


# --- texts ----------------------------------------------------------------------------------------


def absa_reviews(root: Path) -> None:
    """PyContinual's JSON with both spellings of polarity, the original text, and SemEval's XML."""
    for part, n in (("train", 6), ("dev", 2), ("test", 3)):
        rows = {}
        for i in range(n):
            polarity = (("+", "-"), ("positive", "negative"))[n == 2][i % 2]
            sentence = f"the sound of {part} {i} is as it is"
            rows[str(i)] = {"id": i, "polarity": polarity, "sentence": sentence, "term": "sound"}
        rows["n"] = {"id": 9, "polarity": "neutral", "sentence": "it is", "term": "it"}
        folder = root / "dat" / "absa" / "Bing3Domains" / "asc" / "Speaker"
        text(folder / f"{part}.json", json.dumps(rows))
    lines = ["[t]a title", "size[+2],weight[-1]##good \u00e9 on the whole", "##nothing said"]
    lines += ["price[-3][u]##too dear", "screen[+1],case[-1]##even", "zoom[+]##fine zoom"]
    text(root / "hl5" / "Nokia6610.txt", "\n".join(lines))
    terms = '<aspectTerms><aspectTerm term="food" polarity="{}"/></aspectTerms>'
    sentences = [
        f"<sentence id='{i}'><text>the food {i}</text>{terms.format(p)}</sentence>"
        for i, p in enumerate(("positive", "negative", "neutral", "conflict"))
    ]
    xml = (
        f"<sentences>{''.join(sentences)}<sentence id='9'><text>none</text></sentence></sentences>"
    )
    text(root / "semeval" / "rest.xml", xml)
    text(root / "README.txt", "what is here")


def newsgroups(root: Path) -> None:
    """Posts whose headers, footers and quotes name the group, one that is nothing else, latin-1."""
    for part in ("train", "test"):
        for group in ("sci.space", "alt.atheism"):
            for i in range(3):
                head = f"Newsgroups: {group}\nSubject: Re: {group}\n\n"
                quote = f"someone of {group} writes:\n> {group} it was\n"
                body = f"caf\u00e9 number {i} of {part} and {ord(group[0])}\n" if i < 2 else ""
                file = root / f"20news-bydate-{part}" / group / str(100 + i)
                file.parent.mkdir(parents=True, exist_ok=True)
                post = f"{head}{quote}{body}\n--\nme, of {group}\n"
                file.write_text(post, encoding="latin-1")


def no_robots(root: Path) -> None:
    """A dialogue of two turns with a system's message, and one that ends without an answer."""
    import pyarrow as pa
    from pyarrow import parquet

    (root / "data").mkdir(parents=True)
    for part in ("train", "test"):
        said = [("system", "be kind"), ("user", f"who is {part}?"), ("assistant", "a split")]
        more = [*said, ("user", "and more?"), ("assistant", "no more"), ("user", "well")]
        rows = [[{"role": r, "content": c} for r, c in each] for each in (said, more)]
        table = pa.table({"prompt": ["a", "b"], "messages": rows, "category": ["Chat", "QA"]})
        parquet.write_table(table, root / "data" / f"{part}-00000-of-00001.parquet")


def medicine_tasks(root: Path) -> None:
    """JSON, JSON lines, and a task whose inputs hold the options."""
    rows = [
        {"id": i, "input": f"what is {i}?", "options": ["a pill", "a leaf"], "gold_index": i % 2}
        for i in range(6)
    ]
    text(root / "usmle" / "test.json", json.dumps(rows))
    text(root / "RCT" / "test.json", "\n".join(map(json.dumps, rows)))
    told = [f"the cure of 3 is {option}" for option in ("rest", "more rest")]
    held = [{"input_options": told, "output": "indeed", "gold_index": 1}] * 2
    text(root / "MedQs" / "test.json", json.dumps(held))


def law_tasks(root: Path) -> None:
    """A task with options in the question."""
    rows = [
        {"input": f"case {i}: yes or no?", "options": ["yes", "no"], "gold_index": i % 2}
        for i in range(5)
    ]
    text(root / "scotus" / "test.json", json.dumps(rows))


CAMERAS = ("FRONT_LEFT", "FRONT", "FRONT_RIGHT", "BACK_LEFT", "BACK", "BACK_RIGHT")


def nuscenes_qa_mini(root: Path) -> None:
    """Cameras of one grey each, 20 for each place and 1 for each row; a LiDAR that counts."""
    for domain in ("day", "night_80dimgaussian7"):
        for split in ("train", "validation"):
            arrow_file(root / domain / split, scenes(domain, split))


def scenes(domain: str, split: str, n: int = 4) -> dict[str, list[Any]]:
    lidar = np.arange(5 * 32 * 2048, dtype=np.float32).reshape(5, 32, 2048)
    cameras = {
        f"CAM_{name}": [np.full((6, 8, 3), 20 * place + i, np.uint8).tolist() for i in range(n)]
        for place, name in enumerate(CAMERAS)
    }
    return {
        "token": [f"{domain}-{i // 2}" for i in range(n)],
        "question": [f"is it {split} {i}?" for i in range(n)],
        "answer": [("yes", "no", "2", "car")[i % 4] for i in range(n)],
        "LIDAR_TOP": [(lidar + i).tolist() for i in range(n)],
        **cameras,
    }


def arrow_file(folder: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow

    folder.mkdir(parents=True)
    table = pyarrow.table(columns)
    with pyarrow.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as file:
        file.write_table(table)


WRITERS: dict[str, Writer] = {
    **{f"gta5{kind}": gta5 for kind in ("", "-cls", "-det")},
    **{f"cityscapes{kind}": cityscapes for kind in ("", "-cls", "-det")},
    **{f"supervisely-person{kind}": supervisely_person for kind in ("", "-cls", "-det")},
    **{f"baidu-person{kind}": baidu_person for kind in ("", "-cls", "-det")},
    "several": several,
    "box-prompts": cityscapes,
    "cifar10": cifar10,
    "imagenet-c": imagenet_c,
    "spoken-digits": spoken_digits,
    "coco2017": coco2017,
    "coco2017-cls": coco2017,
    "vqav2": vqav2,
    "nuscenes-qa-mini": nuscenes_qa_mini,
    "absa-reviews": absa_reviews,
    "20newsgroups": newsgroups,
    "no-robots": no_robots,
    "medicine-tasks": medicine_tasks,
    "law-tasks": law_tasks,
}
TEXTS = {"absa-reviews", "20newsgroups", "no-robots", "medicine-tasks", "law-tasks"}
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"size": [24, 32]} for name in WRITERS.keys() - TEXTS},
    **{
        name: {"size": [24, 32], "least": 10} for name in WRITERS if name.endswith(("-cls", "-det"))
    },
    "vqav2": {"size": [24, 32], "answers": 3},
    "box-prompts": {"size": [24, 32], "data": {"name": "cityscapes"}, "least": 5},
    "several": {
        "sets": [
            {"name": "gta5", "root": "gta5"},
            {"name": "supervisely-person", "root": "persons"},
        ],
        "size": [24, 32],
    },
}


OVER_OTHERS = {"several", "box-prompts"}
"""Whose folder is that of the data sets which their settings name."""


def written(name: str, root: Path) -> dict[str, Any]:
    """Write the tree of a data set; its settings."""
    WRITERS[name](root)
    return {"root": str(root), **SETTINGS.get(name, {})}
