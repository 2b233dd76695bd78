"""A local page: drop a photo, or take one, and see each face with its answers.

Beside ages with 90% intervals, genders and uncertainties of photos (with
--model-dir) it shows the answers of an embedding store. It needs no internet,
keeps nothing, and listens on this machine only. There is no encryption and no
log-in: for other machines, put a proxy before it, and name it with
--allow-host. SIGTERM stops it.
"""

import argparse
import importlib.util

from kerasmlp.commands.answering import add_answer_arguments, open_answering, open_finder
from kerasmlp.commands.face_options import add_face_arguments, finder_of, limit_pixels, takes_photos
from kerasmlp.commands.serve import add_address_arguments
from kerasmlp.utils.checks import check_int, reject
from kerasmlp.utils.tensorflow_import import import_tensorflow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_answer_arguments(parser)
    add_face_arguments(parser, "insightface's .onnx models, for photos")
    add_address_arguments(parser, 7860, "NAME[:PORT]")


def run(args: argparse.Namespace) -> None:
    if not importlib.util.find_spec("gradio"):
        reject("gradio", "must be installed for the demo (extra `demo`)", None)
    check_int("--num-samples", args.num_samples, minimum=1)
    photos = takes_photos(args)
    limit_pixels()
    import_tensorflow()  # its compiled steps are for threads
    predictors, how = open_answering(args)
    finder = None
    if photos:
        finder = open_finder(args.model_dir, predictors, **finder_of(args))
    from kerasmlp.serving.demo.answers import DemoAnswers
    from kerasmlp.serving.demo.page import serve_demo

    def started(url: str) -> None:
        print(f"ready        {url}", flush=True)

    serve_demo(
        DemoAnswers(predictors, finder, **how),
        host=args.host,
        port=args.port,
        also_hosts=args.allow_host,
        started=started,
    )
    print("stopped")
