"""Group 6: DINO's heads, and what keeps its code in use."""

from rizbin.studies.course import Bilingual, Group, Lesson

GROUP = Group(
    number=6,
    title=Bilingual("DINO", "DINO"),
    notebook="06-dino.ipynb",
    lessons=(
        Lesson(
            name="dino",
            question=Bilingual(
                "What do DINO's attention heads see, and why does it need centering and sharpening?",
                "سرهای توجه DINO چه می‌بینند و چرا به مرکزی‌سازی و تیز کردن نیاز دارد؟",
            ),
            reason=Bilingual(
                "Teacher and student agree at once when all images get one prototype, or all prototypes alike. "
                "Centering stands against the first and sharpening against the second; the attention of [CLS] then "
                "finds objects, though nobody named one (`rizbin visualize attention dino-mini scenes:single`). "
                "Grounding DINO has its name from another DINO, the detector: see the next question.",
                "معلم و دانش‌آموز بی‌درنگ هم‌نظر می‌شوند اگر همهٔ تصویرها یک پیش‌نمونه بگیرند یا همهٔ پیش‌نمونه‌ها "
                "یکسان باشند. مرکزی‌سازی جلوی حالت نخست و تیز کردن جلوی حالت دوم می‌ایستد؛ آن‌گاه توجه [CLS] اشیا "
                "را پیدا می‌کند، بی‌آنکه کسی نامشان را گفته باشد (`rizbin visualize attention dino-mini "
                "scenes:single`). نام Grounding DINO از DINO دیگری می‌آید که یک آشکارساز است: پرسش بعدی را ببینید.",
            ),
            command="rizbin study collapse --seeds 3 --precision bf16",
            page="collapse.html",
            number=Bilingual(
                "DINO: 51.5 percent by nearest neighbors and no alarm; without centering 38.8, without sharpening "
                "36.8, the alarm in 3 of 3 seeds each. Where its "
                "heads look, this page does not measure.",
                "DINO به 51.5 درصد با نزدیک‌ترین همسایه‌ها و بدون هشدار می‌رسد؛ بدون مرکزی‌سازی 38.8 و بدون تیز "
                "کردن 36.8 درصد، و هشدار در هر دو در 3 بذر از 3 بذر برقرار است. اینکه سرهای توجه "
                "کجا را نگاه می‌کنند در این صفحه سنجیده نشده است.",
            ),
            verdict="shown",
            settings={"study": "collapse", "only": ("DINO", "DINO without centering", "DINO without sharpening")},
            small="three of 18 variants, as many steps as the minutes allow",
        ),
    ),
)
