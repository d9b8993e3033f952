"""Group 8: Stable Diffusion step by step."""

from rizbin.studies.course import Bilingual, Group, Lesson

GROUP = Group(
    number=8,
    title=Bilingual("Diffusion, step by step", "انتشار، گام به گام"),
    notebook="08-diffusion.ipynb",
    lessons=(
        Lesson(
            name="diffusion-steps",
            question=Bilingual(
                "What does Stable Diffusion decide at each step, from noise and from a start image, and what do the "
                "words add?",
                "Stable Diffusion در هر گام، از نویز و از تصویر آغازین، چه چیزی را تعیین می‌کند و واژه‌ها چه می‌افزایند؟",
            ),
            reason=Bilingual(
                "Under much noise only large shapes can be told from it, so the network can decide nothing else; "
                "detail becomes visible when less noise is left. Guidance moves each prediction away from the one "
                "without the prompt, and a start image enters the schedule where its strength says.",
                "زیر نویز زیاد تنها شکل‌های بزرگ از آن تشخیص‌پذیرند و شبکه چیز دیگری را نمی‌تواند تعیین کند؛ جزئیات "
                "وقتی پیدا می‌شود که نویز کمتری مانده باشد. راهنمایی هر پیش‌بینی را از پیش‌بینیِ بدون متن دور می‌کند "
                "و تصویر آغازین در جایی وارد زمان‌بند نویز می‌شود که شدت آن می‌گوید.",
            ),
            command="rizbin study denoising",
            page="denoising.html",
            number=Bilingual(
                "Places and colors of the predicted original stay as they will be after 13 percent of the steps, "
                "detail after 37. The prompt moves the predicted noise by 48 percent of its length at the first "
                "step and by 11 at the last. A strength of 0.2 keeps a coarse correlation of 0.95 with the start "
                "image; 0.6 keeps no more (0.32) than an image has that was drawn without it (0.34).",
                "جا و رنگِ تصویر پیش‌بینی‌شده پس از 13 درصد گام‌ها همان می‌ماند که خواهد بود و جزئیات پس از 37 "
                "درصد. متن، نویز پیش‌بینی‌شده را در گام نخست به اندازهٔ 48 درصد و در گام پایانی 11 درصد طول آن "
                "جابه‌جا می‌کند. شدت 0.2 همبستگی درشت 0.95 با تصویر آغازین را نگه می‌دارد و شدت 0.6 بیش از تصویری که "
                "بدون آن کشیده شده (0.34) چیزی نگه نمی‌دارد (0.32).",
            ),
            verdict="shown",
            job="denoising",
            settings={"prompts": ("a zebra and a frog", "a taxi", "a strawberry"), "seeds": 3},
            small="three prompts with 3 seeds in place of six with 6",
        ),
    ),
)
