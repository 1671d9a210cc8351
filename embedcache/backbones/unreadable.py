"""What is said of weight files that can not be read, whoever reads them. No torch."""

import pickle


def why_unreadable(error: Exception) -> str:
    """What an error that came up while weights were loaded says of their files, "" if it says nothing of them.

    PyTorch's old format is a pickle, which could run any code; it is read with `weights_only=True` alone, which refuses
    whatever is more than tensors.
    """
    if isinstance(error, pickle.UnpicklingError):
        return "hold more than tensors, or are damaged: nothing of them was run; use a checkpoint in safetensors"
    if type(error).__name__ == "SafetensorError" or "PytorchStreamReader" in str(error):
        return "are damaged or cut off; fetch the files again"
    return ""
