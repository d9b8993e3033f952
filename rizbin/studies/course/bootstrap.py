"""Group 3: what keeps BYOL from collapsing."""

from rizbin.studies.course import Bilingual, Group, Lesson

GROUP = Group(
    number=3,
    title=Bilingual("Bootstrapping", "بوت‌استرپ (خودراه‌اندازی)"),
    notebook="03-bootstrap.ipynb",
    lessons=(
        Lesson(
            name="byol-collapse",
            question=Bilingual("Why does BYOL not collapse?", "چرا BYOL فرو نمی‌پاشد؟"),
            reason=Bilingual(
                "BYOL has no negatives, and a constant would make its loss zero; yet the gradient does not lead "
                "there, since the target is not moved by it and a predictor stands between the two. Take away the "
                "predictor or the stop-gradient, and the constant is reached.",
                "BYOL نمونهٔ منفی ندارد و یک خروجی ثابت زیانش را صفر می‌کند؛ با این حال گرادیان به آن‌جا نمی‌رود، "
                "زیرا هدف با آن جابه‌جا نمی‌شود و یک شبکهٔ پیش‌بین میان این دو قرار دارد. اگر پیش‌بین یا توقف "
                "گرادیان برداشته شود، شبکه به همان خروجی ثابت می‌رسد.",
            ),
            command="rizbin study collapse --seeds 3 --budget 30",
            page="collapse.html",
            number=Bilingual(
                "BYOL: 42.7 percent, spread 0.66, no alarm. Without predictor the spread is 0.05, without "
                "stop-gradient 0.02, the alarm in 3 of 3 seeds each. A random target is as good at this length: "
                "45.3 percent.",
                "BYOL به 42.7 درصد با پراکندگی 0.66 و بدون هشدار می‌رسد. بدون پیش‌بین پراکندگی 0.05 و بدون توقف "
                "گرادیان 0.02 است و هشدار در هر دو در 3 بذر از 3 بذر برقرار است. هدفی تصادفی در این طول آموزش به "
                "همان خوبی است: 45.3 درصد.",
            ),
            verdict="shown",
            settings={
                "study": "collapse",
                "only": (
                    "BYOL",
                    "BYOL without predictor",
                    "BYOL without stop-gradient",
                    "BYOL, target: a random network",
                ),
            },
            small="four of 18 variants, as many steps as the minutes allow",
        ),
    ),
)
