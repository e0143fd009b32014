"""Published weights by name: the one list of where files come from, with checksum, licence and size.

Each revision is a commit, or else the checksum alone holds the content fixed. The checksums of the LAION heads were
taken from the files; the others are those that several projects publish for the same revision.
"""

from dataclasses import dataclass

GITHUB = "github:"
"""begins the name of a repository that is not on the hub"""


@dataclass(frozen=True)
class Weights:
    """One published file.

    Attributes:
        repository: on the hub, `owner/name`; or `github:owner/name`.
        revision: commit of the repository.
        file: its path in the repository.
        sha256: of the content.
        licence: SPDX name, as its authors give it.
        size_bytes: of the file, for people.
    """

    repository: str
    revision: str
    file: str
    sha256: str
    licence: str
    size_bytes: int


# The CLIP towers are OpenAI's (MIT) as float32 safetensors; the LAION heads were trained on these and no others.
WEIGHTS: dict[str, Weights] = {
    "clip-vit-l-14": Weights(
        "timm/vit_large_patch14_clip_224.openai",
        "18d0535469bb561bf468d76c1d73aa35156c922b",
        "open_clip_model.safetensors",
        "9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e",
        "MIT",
        1_710_517_724,
    ),
    "clip-vit-l-336": Weights(
        "timm/vit_large_patch14_clip_336.openai",
        "81e38efc4637de5023b10e75a7f9bd1c6fa6b010",
        "open_clip_model.safetensors",
        "fbc415c3d0d7b79faed8f5ccfb740c32b7c4f5ffe7283b851f89c6231c01a8e0",
        "MIT",
        1_711_828_444,
    ),
    "clip-vit-b-16": Weights(
        "timm/vit_base_patch16_clip_224.openai",
        "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
        "open_clip_model.safetensors",
        "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
        "MIT",
        598_516_980,
    ),
    "clip-vit-b-32": Weights(
        "timm/vit_base_patch32_clip_224.openai",
        "a6f597a30f7b82c51704746581f9a4e41421e878",
        "open_clip_model.safetensors",
        "e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
        "MIT",
        605_143_284,
    ),
    "laion-mlp-l-14": Weights(
        "github:christophschuhmann/improved-aesthetic-predictor",
        "6934dd81792f086e613a121dbce43082cb8be85e",
        "sac+logos+ava1-l14-linearMSE.pth",
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        "Apache-2.0",
        3_714_759,
    ),
    "laion-v1-l-14": Weights(
        "github:LAION-AI/aesthetic-predictor",
        "6d122adad522ab246644d9dc1c6d7a3810ee255f",
        "sa_0_4_vit_l_14_linear.pth",
        "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        "MIT",
        4_071,
    ),
    "laion-v1-b-16": Weights(
        "github:LAION-AI/aesthetic-predictor",
        "6d122adad522ab246644d9dc1c6d7a3810ee255f",
        "sa_0_4_vit_b_16_linear.pth",
        "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0",
        "MIT",
        3_047,
    ),
    "laion-v1-b-32": Weights(
        "github:LAION-AI/aesthetic-predictor",
        "6d122adad522ab246644d9dc1c6d7a3810ee255f",
        "sa_0_4_vit_b_32_linear.pth",
        "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
        "MIT",
        3_047,
    ),
    "hps-v2-1": Weights(
        "xswu/HPSv2",
        "697403c78157020a1ae59d23f111aa58ced35b0a",
        "HPS_v2.1_compressed.pt",
        "c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837",
        "Apache-2.0",
        1_972_490_005,
    ),
    "pickscore-v1": Weights(
        "yuvalkirstain/PickScore_v1",
        "a4e4367c6dfa7288a00c550414478f865b875800",
        "model.safetensors",
        "ef31ef6fc5ff4d9bb90dd232df4e145887ba62c5a03aa2841415f8c25f18d52e",
        "MIT",
        3_940_000_000,
    ),
    "craft": Weights(
        "boomb0om/CRAFT-text-detector",
        "main",
        "craft_mlt_25k.pth",
        "4a5efbfb48b4081100544e75e1e2b57f8de3d84f213004b14b85fd4b3748db17",
        "MIT",
        83_152_330,
    ),
    "depth-v2-small": Weights(
        "depth-anything/Depth-Anything-V2-Small-hf",
        "5426e4f0f36572d16453bbda7a8389317b1bef99",
        "model.safetensors",
        "3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
        "Apache-2.0",
        99_173_660,
    ),
    "dwpose-people": Weights(
        "yzd-v/DWPose",
        "f7c16a3d45ad3783db41471848c80fbc281cabac",
        "yolox_l.onnx",
        "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
        "Apache-2.0",
        216_746_733,
    ),
    "dwpose-keypoints": Weights(
        "yzd-v/DWPose",
        "f7c16a3d45ad3783db41471848c80fbc281cabac",
        "dw-ll_ucoco_384.onnx",
        "724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
        "Apache-2.0",
        134_399_116,
    ),
    "controlnet-hed": Weights(
        "lllyasviel/Annotators",
        "982e7edaec38759d914a963c48c4726685de7d96",
        "ControlNetHED.pth",
        "5ca93762ffd68a29fee1af9d495bf6aab80ae86f08905fb35472a083a4c7a8fa",
        "Apache-2.0",
        29_444_406,
    ),
    "mlsd-large": Weights(
        "lllyasviel/Annotators",
        "982e7edaec38759d914a963c48c4726685de7d96",
        "mlsd_large_512_fp32.pth",
        "5696f168eb2c30d4374bbfd45436f7415bb4d88da29bea97eea0101520fba082",
        "Apache-2.0",
        6_341_481,
    ),
}
