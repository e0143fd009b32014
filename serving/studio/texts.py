"""Every text of the page, in English and Chinese: one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "selects_"
Words = Callable[[str], Any]
"""from a key to what Gradio shows in the browser's language"""


@dataclass(frozen=True)
class Text:
    """One text.

    Attributes:
        en: in English.
        zh: in Chinese.
    """

    en: str
    zh: str


TEXTS: Mapping[str, Text] = {
    # tabs
    "generate": Text("Generate", "生成"),
    "library": Text("Models and LoRAs", "模型与 LoRA"),
    "history": Text("History", "历史"),
    "curate": Text("Curate", "数据筛选"),
    "train": Text("Train", "训练"),
    # the form
    "model": Text("Model", "模型"),
    "prompt": Text("Prompt", "提示词"),
    "prompt_help": Text("What the video shall show.", "视频应呈现的内容。"),
    "negative_prompt": Text("Negative prompt", "反向提示词"),
    "negative_prompt_help": Text("What guidance leads away from.", "引导所远离的内容。"),
    "seed": Text("Seed", "随机种子"),
    "seed_help": Text(
        "The same seed and settings give the same file. Empty: a new one.", "种子与设置相同，文件即相同。留空则随机。"
    ),
    "width": Text("Width (px)", "宽（像素）"),
    "height": Text("Height (px)", "高（像素）"),
    "size_help": Text("Empty: as trained, or as the picture asks for.", "留空：按训练尺寸或图片比例。"),
    "num_frames": Text("Frames", "帧数"),
    "num_frames_help": Text("Of a segment; 1 makes a picture.", "每段帧数；1 表示图片。"),
    "fps": Text("Frames per second", "帧率"),
    "fps_help": Text("Of the file. Empty: as trained.", "文件帧率。留空：按训练帧率。"),
    "num_inference_steps": Text("Steps", "步数"),
    "num_inference_steps_help": Text("Denoising steps: more take longer.", "去噪步数：越多越慢。"),
    "guidance_scale": Text("Guidance", "引导强度"),
    "guidance_scale_help": Text("How closely the prompt is followed; 1: not.", "遵循提示词的程度；1 表示关闭。"),
    "sampler": Text("Sampler", "采样器"),
    "sampler_help": Text("Those that this model can be sampled with.", "此模型可用的采样器。"),
    "further": Text("Size, length and sampling", "尺寸、长度与采样"),
    "from_image": Text("From an image", "由图片生成"),
    "image": Text("First frame", "首帧"),
    "end_image": Text("Last frame", "尾帧"),
    "end_image_none": Text(
        "A last frame needs a model with condition channels (InP).", "尾帧需要带条件通道的模型（InP）。"
    ),
    "from_video": Text("From a video, with a mask", "由视频生成（可加蒙版）"),
    "video": Text("Video, or an image for a picture", "视频；若生成图片则为图片"),
    "strength": Text("Strength", "重绘强度"),
    "strength_help": Text(
        "0 gives the video back, 1 forgets it. Empty: 0.7, with a mask 1.",
        "0 保持原视频，1 完全重绘。留空：0.7，有蒙版则为 1。",
    ),
    "painted": Text("Paint what is generated anew", "涂抹需要重新生成的区域"),
    "to_paint": Text("Show the first frame to paint on", "显示首帧以涂抹"),
    "mask": Text("Mask as a file: white is generated", "蒙版文件：白色区域重新生成"),
    "long": Text("Long video", "长视频"),
    "segments": Text("Segments", "段数"),
    "segments_help": Text("How often the model continues. Empty: one segment.", "模型续写的段数。留空：一段。"),
    "length": Text("Length (frames)", "总长（帧）"),
    "length_help": Text("In all, in place of segments.", "总帧数，可代替段数。"),
    "overlap": Text("Overlap (frames)", "重叠（帧）"),
    "overlap_help": Text("Frames that segments share.", "相邻段共享的帧数。"),
    "prompts": Text("Prompts of its stretches", "分段提示词"),
    "prompts_help": Text(
        "One a line, in place of the prompt above; `49 | a red disc` holds for 49 frames, to the nearest segment.",
        "每行一个，取代上面的提示词；“49 | 红色圆盘”表示持续 49 帧，分界取最近的段边界。",
    ),
    "steer": Text("Control, camera, trajectory, reference", "控制、镜头、轨迹、参考"),
    "steer_help": Text("Each needs a model that sees it: {}", "均需相应模型：{}"),
    "control": Text("Control map, or footage that one is made of", "控制图，或用于生成控制图的素材"),
    "control_kind": Text("Map made of it", "由素材生成的控制图"),
    "control_kind_help": Text("as_is: the file is a map.", "as_is：文件本身即控制图。"),
    "show_map": Text("Show the map", "显示控制图"),
    "control_scale": Text("How strongly it acts", "控制强度"),
    "control_start": Text("From this share of the steps", "起始步比例"),
    "control_end": Text("To this share of the steps", "结束步比例"),
    "reference": Text("Reference image: the look", "参考图：外观"),
    "camera": Text("Camera", "镜头"),
    "camera_file": Text("Camera from a path (.txt) or a video", "镜头路径文件（.txt）或视频"),
    "camera_speed": Text("How far the camera goes", "镜头幅度"),
    "trajectory": Text("Points as a file (JSON or CSV)", "轨迹点文件（JSON 或 CSV）"),
    "drawn": Text("Click on the picture, point after point", "在图上逐点点击绘制轨迹"),
    "new_path": Text("Begin another path", "新轨迹"),
    "to_draw": Text("Show the first frame to draw on", "显示首帧以绘制"),
    "clear_paths": Text("Clear", "清除"),
    "loras": Text("LoRAs", "LoRA"),
    "lora_help": Text("0: not used.", "0 表示不使用。"),
    "go": Text("Generate", "生成"),
    "cancel": Text("Cancel", "取消"),
    "result": Text("Result", "结果"),
    "settings": Text("Settings", "设置"),
    # what is said while a job goes on
    "waiting": Text("Waiting; {} before it.", "排队中，前面还有 {} 个。"),
    "loading": Text("Loading the model…", "正在加载模型…"),
    "step": Text("Step {} of {}", "第 {} 步，共 {} 步"),
    "done": Text("Done in {} s. Seed {}.", "完成，用时 {} 秒。种子 {}。"),
    "cancelled": Text("Cancelled.", "已取消。"),
    "stopping": Text("Cancelling: it ends before its next step.", "正在取消：将在下一步之前结束。"),
    "failed": Text("Failed: {}", "失败：{}"),
    "removed": Text("This job was removed.", "此任务已被删除。"),
    "comes_to": Text("{} frames of {}×{} px at {} fps: {} s.", "{} 帧，{}×{} 像素，{} fps：{} 秒。"),
    "trained_for": Text("As trained: {}×{} px, {} frames, {} fps.", "训练设置：{}×{} 像素，{} 帧，{} fps。"),
    # models
    "models_here": Text("Models", "模型"),
    "loras_here": Text("LoRAs", "LoRA"),
    "look_again": Text("Look again", "刷新"),
    "name": Text("Name", "名称"),
    "family": Text("Family", "系列"),
    "size_gb": Text("Size (GB)", "大小（GB）"),
    "takes": Text("Takes", "输入"),
    "trained": Text("Trained for", "训练设置"),
    "fits": Text("On this machine", "本机能否运行"),
    "rank": Text("Rank", "秩"),
    "fits_models": Text("Fits", "适用模型"),
    # history
    "gallery": Text("What was made", "生成结果"),
    "to_form": Text("Settings into the form", "将设置填入表单"),
    "to_left": Text("Compare: left", "对比：左"),
    "to_right": Text("Compare: right", "对比：右"),
    "remove": Text("Remove", "删除"),
    "drop": Text("A file made here gives its settings back", "拖入此处生成的文件以恢复设置"),
    "no_settings": Text("This file does not say what it was made with.", "此文件不含生成设置。"),
    "left": Text("Left", "左"),
    "right": Text("Right", "右"),
    "differs": Text("What differs", "不同之处"),
    "nothing_differs": Text("The settings are the same.", "设置相同。"),
    "not_offered": Text("Not offered here, left out: {}", "此处未提供，已忽略：{}"),
    # curate
    "folder": Text("Folder of videos and images", "视频与图片文件夹"),
    "folder_help": Text("On the machine of this server, within: {}", "位于服务器上，限于：{}"),
    "output_name": Text("Name of the output", "输出名称"),
    "output_help": Text("Letters, digits, - and _. The same name resumes.", "字母、数字、- 和 _。同名则继续。"),
    "recipe": Text("Recipe", "配方"),
    "blank": Text("Empty fields stay as the recipe has them.", "留空则沿用配方。"),
    "more_keys": Text("Further keys, one key=value a line", "其他键，每行一个 key=value"),
    "start_curate": Text("Curate", "开始筛选"),
    "stop": Text("Stop", "停止"),
    "output": Text("Output", "输出"),
    "report": Text("Open the report", "打开报告"),
    "rejected_by": Text("Rejected, by the first rule that does", "按首个拒绝规则统计"),
    # train
    "config": Text("Config", "配置"),
    "data": Text("Data: an output of Curate", "数据：筛选输出"),
    "where": Text("Rows kept, such as aesthetic > 5", "保留的行，例如 aesthetic > 5"),
    "show_plan": Text("Show the plan", "显示计划"),
    "start_train": Text("Train", "开始训练"),
    "run_name": Text("Name of the run", "训练名称"),
    "loss": Text("Loss", "损失"),
    "samples": Text("Latest samples", "最新样本"),
    "busy": Text("Another run goes on: {}. Stop it first.", "另一任务正在运行：{}。请先停止。"),
    "ended": Text("Ended (code {}).", "已结束（代码 {}）。"),
    "running": Text("Running: {}", "运行中：{}"),
}


def translations() -> dict[str, dict[str, str]]:
    """Return the table as Gradio takes it: by locale, then by key, apart from the keys of its own texts."""
    chinese = {PREFIX + key: text.zh for key, text in TEXTS.items()}
    english = {PREFIX + key: text.en for key, text in TEXTS.items()}
    return {"en": english, "zh-CN": chinese, "zh-TW": chinese, "zh": chinese}


def language_of(accepts: str | None) -> str:
    """Return `zh` or `en` for a browser's `Accept-Language`."""
    first = (accepts or "").split(",")[0].strip().lower()
    return "zh" if first.startswith("zh") else "en"


def say(key: str, language: str, *values: object) -> str:
    """Return a text in a language, with values in its places."""
    text = TEXTS[key]
    return (text.zh if language == "zh" else text.en).format(*values)
