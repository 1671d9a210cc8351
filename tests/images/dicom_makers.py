"""Small Enhanced objects and segmentations, with functional groups as PS3.3 C.7.6.16 lays them out."""

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ENHANCED = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}


def write_enhanced(
    path,
    volume,
    *,
    modality="CT",
    spacing=(2.0, 0.7, 0.7),
    origin=(0.0, 0.0, 0.0),
    orientation=AXIAL,
    slopes=None,
    intercepts=None,
    windows=None,
    seed=0,
    shared_orientation=True,
):
    """An Enhanced object of (time, slice, y, x), frames shuffled by `seed`; slopes, intercepts, windows per slice."""
    n_times, n = volume.shape[:2]
    normal = np.cross(orientation[:3], orientation[3:])
    dataset = _enhanced(volume, ENHANCED[modality], modality, spacing)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.DimensionIndexSequence = [
        _item(DimensionIndexPointer=Tag("StackID"), FunctionalGroupPointer=Tag("FrameContentSequence")),
        _item(DimensionIndexPointer=Tag("InStackPositionNumber"), FunctionalGroupPointer=Tag("FrameContentSequence")),
        _item(DimensionIndexPointer=Tag("TemporalPositionIndex"), FunctionalGroupPointer=Tag("FrameContentSequence")),
    ]
    direction = _item(ImageOrientationPatient=list(map(float, orientation)))
    if shared_orientation:
        dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [direction]
    places = [(t, i) for t in range(n_times) for i in range(n)]
    places = [places[k] for k in np.random.default_rng(seed).permutation(len(places))]
    for t, i in places:
        frame = Dataset()
        frame.FrameContentSequence = [
            _item(
                StackID="1",
                InStackPositionNumber=i + 1,
                TemporalPositionIndex=t + 1,
                DimensionIndexValues=[1, i + 1, t + 1],
            )
        ]
        position = np.asarray(origin) + i * spacing[0] * normal
        frame.PlanePositionSequence = [_item(ImagePositionPatient=[round(float(v), 6) for v in position])]
        if not shared_orientation:
            frame.PlaneOrientationSequence = [direction]
        frame.PixelValueTransformationSequence = [
            _item(
                RescaleIntercept=0.0 if intercepts is None else intercepts[i],
                RescaleSlope=1.0 if slopes is None else slopes[i],
                RescaleType="HU",
            )
        ]
        if windows is not None:
            frame.FrameVOILUTSequence = [_item(WindowCenter=windows[i][0], WindowWidth=windows[i][1])]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    dataset.PixelData = np.stack([volume[t, i] for t, i in places]).tobytes()
    return _saved(dataset, path)


def write_segmentation(
    path,
    frames,
    *,
    kind="BINARY",
    labels=("first", "second"),
    spacing=(2.0, 0.7, 0.7),
    positions=None,
    sources=None,
    orientation=AXIAL,
    refers_to=None,
):
    """A segmentation of frames [(segment number, (y, x) pixels)], each with a position and / or a SOPInstanceUID.

    `refers_to` is (SeriesInstanceUID, [SOPInstanceUID, ...]) of the images it was drawn on.
    """
    pixels = np.stack([p for _, p in frames]).astype(np.uint8)
    dataset = _enhanced(pixels, SegmentationStorage, "SEG", spacing)
    dataset.SegmentationType = kind
    dataset.SegmentSequence = [_item(SegmentNumber=i + 1, SegmentLabel=label) for i, label in enumerate(labels)]
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [
        _item(ImageOrientationPatient=list(map(float, orientation)))
    ]
    for i, (segment, _) in enumerate(frames):
        frame = Dataset()
        if segment is not None:
            frame.SegmentIdentificationSequence = [_item(ReferencedSegmentNumber=segment)]
        if positions is not None:
            frame.PlanePositionSequence = [_item(ImagePositionPatient=list(map(float, positions[i])))]
        if sources is not None:
            frame.DerivationImageSequence = [_item(SourceImageSequence=[_item(ReferencedSOPInstanceUID=sources[i])])]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    if refers_to is not None:
        series, instances = refers_to
        dataset.ReferencedSeriesSequence = [
            _item(
                SeriesInstanceUID=series,
                ReferencedInstanceSequence=[_item(ReferencedSOPInstanceUID=uid) for uid in instances],
            )
        ]
    if kind == "BINARY":
        dataset.BitsAllocated = dataset.BitsStored = 1
        dataset.HighBit = 0
        packed = np.packbits(pixels.ravel(), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    else:
        if kind == "FRACTIONAL":
            dataset.MaximumFractionalValue = 100
        dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    return _saved(dataset, path)


def _enhanced(pixels, sop_class, modality, spacing):
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = generate_uid(), generate_uid()
    dataset.Modality, dataset.InstanceNumber, dataset.SeriesNumber, dataset.Manufacturer = modality, 1, 1, "none"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.NumberOfFrames = int(np.prod(pixels.shape[:-2]))
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    measures = _item(SpacingBetweenSlices=spacing[0], SliceThickness=spacing[0], PixelSpacing=list(spacing[1:]))
    dataset.SharedFunctionalGroupsSequence = [_item(PixelMeasuresSequence=[measures])]
    dataset.PerFrameFunctionalGroupsSequence = []
    return dataset


def _item(**elements):
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _saved(dataset, path):
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated <= 8 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return Path(path)
