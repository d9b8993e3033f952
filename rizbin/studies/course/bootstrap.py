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
            command="rizbin study bootstrap --steps 600 --seeds 3 --precision bf16",
            page="bootstrap.html",
            number=Bilingual(
                "BYOL names 70.5 ± 2.6 percent by nearest neighbors, and no alarm stood. Without predictor the "
                "spread of its projections is 0.09, without stop-gradient 0.01, the alarm in 3 of 3 seeds each. "
                "And it teaches itself: a random target that never moves gives 60.2 ± 1.6, raw pixels have 29.3. "
                "Whether the moving average adds anything (+1.4 points), three seeds cannot tell; without it nothing "
                "collapses.",
                "BYOL با نزدیک‌ترین همسایه‌ها به 70.5 ± 2.6 درصد می‌رسد و هشداری ندارد. بدون پیش‌بین پراکندگی "
                "بازنمایی‌ها 0.09 و بدون توقف گرادیان 0.01 است و هشدار در هر دو در 3 بذر از 3 بذر برقرار است. "
                "خودش را هم آموزش می‌دهد: هدفی تصادفی که هرگز تغییر نمی‌کند 60.2 ± 1.6 درصد می‌دهد و پیکسل‌های خام 29.3"
                " درصد. سه بذر تصادفی نمی‌توانند بگویند که میانگین متحرک چیزی می‌افزاید (1.4 واحد) یا نه؛ بدون آن هم "
                "چیزی فرو نمی‌پاشد.",
            ),
            verdict="shown",
            settings={
                "study": "bootstrap",
                "only": (
                    "BYOL",
                    "target: a random network that never moves",
                    "no predictor",
                    "no stop-gradient",
                ),
            },
            small="four of seven variants, as many steps as the minutes allow",
        ),
    ),
)
