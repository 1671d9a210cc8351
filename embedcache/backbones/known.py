"""Checkpoints that are known by name: what they are, whose they are, what they weigh. Data, no code of a model.

Anything else of a registered family works as well; it is only not listed. Each fact was read in timm's registry, in
transformers' configurations, on a model's page or in its paper; what was not is left empty. `parameters` are those that
run here: without a classifier, a text tower or a decoder.
"""

import difflib
from dataclasses import dataclass

APACHE, MIT, BSD, NC = "Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-NC-4.0"
DINOV3_LICENCE = "DINOv3 License"
HEALTH_AI = "Health AI Developer Foundations terms of use"

OQUAB = "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023, arXiv:2304.07193"
DARCET = "Darcet et al., Vision Transformers Need Registers, 2023, arXiv:2309.16588"
DINOV3 = "Siméoni et al., DINOv3, 2025, arXiv:2508.10104"
VIT = "Dosovitskiy et al., An Image is Worth 16x16 Words, 2021, arXiv:2010.11929"
MAE = "He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv:2111.06377"
CLIP = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv:2103.00020"
OPEN_CLIP = "Cherti et al., Reproducible scaling laws for contrastive language-image learning, 2022, arXiv:2212.07143"
DENSENET = "Huang et al., Densely Connected Convolutional Networks, 2016, arXiv:1608.06993"
RESNET = "He et al., Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385"
VGG = (
    "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014, arXiv:1409.1556"
)
SAM = "Kirillov et al., Segment Anything, 2023, arXiv:2304.02643"
SIGLIP = "Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023, arXiv:2303.15343"
SIGLIP2 = "Tschannen et al., SigLIP 2: Multilingual Vision-Language Encoders, 2025, arXiv:2502.14786"
MSN = "Assran et al., Masked Siamese Networks for Label-Efficient Learning, 2022, arXiv:2204.07141"
IJEPA = (
    "Assran et al., Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture, 2023, "
    "arXiv:2301.08243"
)
SWIN = "Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, 2021, arXiv:2103.14030"
SWINV2 = "Liu et al., Swin Transformer V2: Scaling Up Capacity and Resolution, 2021, arXiv:2111.09883"
CONVNEXT = "Liu et al., A ConvNet for the 2020s, 2022, arXiv:2201.03545"
CONVNEXTV2 = (
    "Woo et al., ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders, 2023, arXiv:2301.00808"
)
HIERA = "Ryali et al., Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles, 2023, arXiv:2306.00989"
BIOMEDCLIP = (
    "Zhang et al., Large-Scale Domain-Specific Pretraining for Biomedical Vision-Language Processing, 2023, "
    "arXiv:2303.00915"
)
RAD_DINO = "Pérez-García et al., Exploring Scalable Medical Image Encoders Beyond Text Supervision, 2024"
EFFICIENTNET = (
    "Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019, arXiv:1905.11946"
)


@dataclass(frozen=True)
class KnownBackbone:
    """One checkpoint."""

    name: str
    """What `--backbone` takes."""
    family: str
    what: str
    licence: str = ""
    """Of the weights; "" where it was not verified."""
    citation: str = ""
    parameters: int | None = None
    size: int | None = None
    """Pixels a side of its own input."""
    layers: int | None = None
    """Blocks, or stages of a hierarchical model."""
    gated: bool = False
    """Its licence must be accepted on its page before it can be fetched."""
    study: bool = False
    """One of the eleven of the study's table 2, or SAM of its table 9."""
    paper: str = ""
    """What the study did with it, where that needs saying."""


NAMED = ("patches", "pixels", "timm")
"""What stands before the colon of a name."""
KNOWN: tuple[KnownBackbone, ...] = (
    # the study's
    KnownBackbone(
        "facebook/dinov2-small", "dinov2", "ViT-S/14, self-supervised, LVD-142M", APACHE, OQUAB,
        22_056_576, 224, 12, study=True,
    ),
    KnownBackbone(
        "facebook/dinov2-base", "dinov2", "ViT-B/14, self-supervised, LVD-142M", APACHE, OQUAB,
        86_580_480, 224, 12, study=True,
    ),
    KnownBackbone(
        "facebook/dinov2-large", "dinov2", "ViT-L/14, self-supervised, LVD-142M", APACHE, OQUAB,
        304_368_640, 224, 24, study=True,
    ),
    KnownBackbone(
        "facebook/dinov2-giant", "dinov2", "ViT-g/14, self-supervised, LVD-142M", APACHE, OQUAB,
        1_136_480_768, 224, 40, study=True,
    ),
    KnownBackbone(
        "google/vit-large-patch16-224-in21k", "vit", "ViT-L/16, supervised, ImageNet-21k", APACHE, VIT,
        303_301_632, 224, 24, study=True,
        paper="the study most likely loaded google/vit-large-patch16-224, which was fine-tuned on ImageNet-1k afterwards",
    ),
    KnownBackbone(
        "google/vit-large-patch16-224", "vit", "ViT-L/16, supervised, ImageNet-21k, then fine-tuned on ImageNet-1k",
        APACHE, VIT, 303_301_632, 224, 24,
        paper="most likely what the study calls ViT-L/16 ImageNet-21k; use it to repeat the study",
    ),
    KnownBackbone(
        "facebook/vit-mae-large", "vit_mae", "ViT-L/16, masked autoencoder, ImageNet-1k", NC, MAE,
        303_301_632, 224, 24, study=True,
        paper="the encoder runs here unmasked and in order; transformers' ViTMAEModel masks 75% of the patches at random",
    ),
    KnownBackbone(
        "openai/clip-vit-large-patch14", "clip", "ViT-L/14, image-text, WIT-400M", MIT, CLIP,
        303_179_776, 224, 24, study=True,
    ),
    KnownBackbone(
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "clip", "ViT-H/14, image-text (OpenCLIP), LAION-2B", "", OPEN_CLIP,
        630_766_080, 224, 32, study=True,
    ),
    KnownBackbone(
        "timm:densenet201.tv_in1k", "timm", "DenseNet-201, supervised, ImageNet-1k", APACHE, DENSENET,
        18_092_928, 224, study=True, paper="table 2 counts 20M, with the classifier",
    ),
    KnownBackbone(
        "timm:resnet152.tv_in1k", "timm", "ResNet-152, supervised, ImageNet-1k", BSD, RESNET,
        58_143_808, 224, study=True, paper="table 2 counts 60M, with the classifier",
    ),
    KnownBackbone(
        "timm:vgg19.tv_in1k", "timm", "VGG-19, supervised, ImageNet-1k", BSD, VGG,
        139_570_240, 224, study=True, paper="table 2 counts 144M, with the classifier",
    ),
    KnownBackbone(
        "facebook/sam-vit-large", "sam", "ViT-L/16 encoder of Segment Anything, SA-1B", APACHE, SAM,
        308_278_272, 1024, 25, study=True, paper="a classifier on its mean patch token at 1024 pixels (table 9)",
    ),
    # DINOv2 with registers, and DINOv3
    KnownBackbone(
        "facebook/dinov2-with-registers-small", "dinov2_with_registers", "ViT-S/14, self-supervised, 4 registers",
        APACHE, f"{DARCET}; {OQUAB}", 22_058_112, 224, 12,
    ),
    KnownBackbone(
        "facebook/dinov2-with-registers-base", "dinov2_with_registers", "ViT-B/14, self-supervised, 4 registers",
        APACHE, f"{DARCET}; {OQUAB}", 86_583_552, 224, 12,
    ),
    KnownBackbone(
        "facebook/dinov2-with-registers-large", "dinov2_with_registers", "ViT-L/14, self-supervised, 4 registers",
        APACHE, f"{DARCET}; {OQUAB}", 304_372_736, 224, 24,
    ),
    KnownBackbone(
        "facebook/dinov2-with-registers-giant", "dinov2_with_registers", "ViT-g/14, self-supervised, 4 registers",
        APACHE, f"{DARCET}; {OQUAB}", 1_136_486_912, 224, 40,
    ),
    KnownBackbone(
        "facebook/dinov3-vits16-pretrain-lvd1689m", "dinov3_vit", "ViT-S/16, self-supervised, LVD-1689M, 4 registers",
        DINOV3_LICENCE, DINOV3, 21_596_544, 224, 12, gated=True,
    ),
    KnownBackbone(
        "facebook/dinov3-vitb16-pretrain-lvd1689m", "dinov3_vit", "ViT-B/16, self-supervised, LVD-1689M, 4 registers",
        DINOV3_LICENCE, DINOV3, 85_660_416, 224, 12, gated=True,
    ),
    KnownBackbone(
        "facebook/dinov3-vitl16-pretrain-lvd1689m", "dinov3_vit", "ViT-L/16, self-supervised, LVD-1689M, 4 registers",
        DINOV3_LICENCE, DINOV3, 303_129_600, 224, 24, gated=True,
    ),
    KnownBackbone(
        "facebook/dinov3-convnext-tiny-pretrain-lvd1689m", "dinov3_convnext", "ConvNeXt-T, self-supervised, LVD-1689M",
        DINOV3_LICENCE, DINOV3, 27_820_128, 224, 4, gated=True,
    ),
    KnownBackbone(
        "facebook/dinov3-convnext-large-pretrain-lvd1689m", "dinov3_convnext", "ConvNeXt-L, self-supervised, LVD-1689M",
        DINOV3_LICENCE, DINOV3, 196_230_336, 224, 4, gated=True,
    ),
    # image-text
    KnownBackbone(
        "google/siglip-base-patch16-224", "siglip", "ViT-B/16, image-text, WebLI", APACHE, SIGLIP, 92_884_224, 224, 12,
    ),
    KnownBackbone(
        "google/siglip-so400m-patch14-384", "siglip", "ViT-So400m/14, image-text, WebLI", APACHE, SIGLIP,
        428_225_600, 384, 27,
    ),
    KnownBackbone(
        "google/siglip2-base-patch16-224", "siglip", "ViT-B/16, image-text, WebLI (SigLIP 2)", APACHE, SIGLIP2,
        92_884_224, 224, 12,
    ),
    KnownBackbone(
        "google/siglip2-so400m-patch14-384", "siglip", "ViT-So400m/14, image-text, WebLI (SigLIP 2)", APACHE, SIGLIP2,
        428_225_600, 384, 27,
    ),
    KnownBackbone(
        "google/siglip2-base-patch16-naflex", "siglip2", "ViT-B/16, image-text, WebLI (SigLIP 2), any aspect",
        APACHE, SIGLIP2, 92_930_304, None, 12,
    ),
    # medical
    KnownBackbone(
        "microsoft/rad-dino", "dinov2", "ViT-B/14 of DINOv2, trained further on chest radiographs",
        "MIT (earlier revisions: MSRLA)", RAD_DINO, 86_580_480, 518, 12,
    ),
    KnownBackbone(
        "google/medsiglip-448", "siglip", "ViT-So400m/14, image-text, medical images of many kinds", HEALTH_AI,
        "Google, MedSigLIP model card, 2025", None, 448, gated=True,
    ),
    KnownBackbone(
        "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", "open_clip",
        "ViT-B/16, image-text, figures of PubMed Central (PMC-15M)", MIT, BIOMEDCLIP, None, 224, 12,
    ),
    # self-supervised ViTs
    KnownBackbone(
        "facebook/vit-mae-base", "vit_mae", "ViT-B/16, masked autoencoder, ImageNet-1k", NC, MAE, 85_798_656, 224, 12,
    ),
    KnownBackbone(
        "facebook/vit-msn-base", "vit_msn", "ViT-B/16, masked siamese networks, ImageNet-1k", "", MSN, 85_798_656, 224, 12,
    ),
    KnownBackbone(
        "facebook/vit-msn-large", "vit_msn", "ViT-L/16, masked siamese networks, ImageNet-1k", APACHE, MSN,
        303_301_632, 224, 24,
    ),
    KnownBackbone(
        "facebook/ijepa_vith14_1k", "ijepa", "ViT-H/14, joint-embedding prediction, ImageNet-1k", NC, IJEPA,
        630_762_240, 224, 32,
    ),
    # hierarchical, and convolutional
    KnownBackbone(
        "microsoft/swin-tiny-patch4-window7-224", "swin", "Swin-T, supervised, ImageNet-1k", "", SWIN, 27_519_354, 224, 4,
    ),
    KnownBackbone(
        "microsoft/swinv2-tiny-patch4-window8-256", "swinv2", "Swin V2-T, supervised, ImageNet-1k", "", SWINV2,
        27_578_154, 256, 4,
    ),
    KnownBackbone(
        "facebook/hiera-base-224-hf", "hiera", "Hiera-B, masked autoencoder, ImageNet-1k", NC, HIERA, 50_754_432, 224, 4,
    ),
    KnownBackbone(
        "facebook/convnext-tiny-224", "convnext", "ConvNeXt-T, supervised, ImageNet-1k", "", CONVNEXT, 27_820_128, 224, 4,
    ),
    KnownBackbone(
        "facebook/convnextv2-tiny-1k-224", "convnextv2", "ConvNeXt V2-T, masked autoencoder, ImageNet-1k", "", CONVNEXTV2,
        27_866_496, 224, 4,
    ),
    KnownBackbone(
        "microsoft/resnet-50", "resnet", "ResNet-50, supervised, ImageNet-1k", "", RESNET, 23_508_032, 224, 4,
    ),
    KnownBackbone(
        "timm:tf_efficientnet_lite0.in1k", "timm", "EfficientNet-Lite0, supervised, ImageNet-1k", APACHE, EFFICIENTNET,
        3_371_008, 224,
    ),
)  # fmt: skip


def find_known(name: str) -> KnownBackbone | None:
    """The checkpoint of that name, None where it is none of KNOWN."""
    return next((known for known in KNOWN if known.name == name), None)


def did_you_mean(name: str) -> str:
    """`; did you mean 'facebook/dinov2-small'?` for a name near a known one, with its organisation or without; "" else."""
    family, colon, argument = name.partition(":")
    if find_known(name) is not None:
        return ""
    if colon and family not in NAMED and (near := difflib.get_close_matches(family, NAMED, n=1)):
        return f"; did you mean '{near[0]}:{argument}'?"
    # a whole name must be nearer: other checkpoints of an organisation differ in a number alone
    whole, short = {known.name: known.name for known in KNOWN}, {k.name.rpartition("/")[2]: k.name for k in KNOWN}
    for names, cutoff in ((whole, 0.9), ({} if "/" in name else short, 0.8)):
        if near := difflib.get_close_matches(name, names, n=1, cutoff=cutoff):
            return f"; did you mean {names[near[0]]!r}?"
    return ""
