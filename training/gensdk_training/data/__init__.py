"""Data sets by name, folder or file: checked first, then read by index."""

from gensdk_training.data.dataset import ArrayDataset, Dataset, ImageBatch
from gensdk_training.data.load import DATASET_NAMES, load_data

__all__ = ["DATASET_NAMES", "ArrayDataset", "Dataset", "ImageBatch", "load_data"]
