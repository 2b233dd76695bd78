from kerasmlp.runs.model import load_model as load_model
from kerasmlp.runs.predictor import Predictor as Predictor
from kerasmlp.runs.run_folder import RunFolder as RunFolder
