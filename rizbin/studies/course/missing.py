"""Group 9: objects that are asked for and not drawn."""

from rizbin.studies.course import Bilingual, Group, Lesson

GROUP = Group(
    number=9,
    title=Bilingual("Missing objects", "اشیای جاافتاده"),
    notebook="09-missing.ipynb",
    lessons=(
        Lesson(
            name="missing-objects",
            question=Bilingual(
                "Why are objects of a prompt not drawn, and does anything help that is worth its time?",
                "چرا برخی اشیای متن کشیده نمی‌شوند و آیا چیزی کمک می‌کند که به وقتش بیرزد؟",
            ),
            reason=Bilingual(
                "When the attention of two objects lies on one place, one of them takes it, and the other has "
                "nowhere to be drawn. Guidance moves the latents until the maps part; a repair strategy looks with "
                "a detector and draws again.",
                "وقتی توجه دو شیء روی یک جا می‌افتد، یکی آن را می‌گیرد و برای دیگری جایی نمی‌ماند. راهنمایی "
                "بردارهای نهان را جابه‌جا می‌کند تا نقشه‌های توجه از هم جدا شوند؛ راهبرد ترمیم با آشکارساز نگاه "
                "می‌کند و دوباره می‌کشد.",
            ),
            command="rizbin study missing-objects --guidance-scale 1.1 --tuning 30 --seeds 60",
            page="missing-objects.html",
            number=Bilingual(
                "Plainly 68.9 percent of the images are whole. The best guidance, at a scale of its own, has 77.8 (36 "
                "repaired, 20 broken; p 0.088), by the second judge 85.6 against 77.8; the best of two plain images "
                "has 86.1 (p 0.032). Repair ends with 100.0 percent verified, and the second judge confirms 96.7. That "
                "maps overlap predicts a missing object (area under the curve 0.65 for the distance of centers), that "
                "they are faint does not (0.52).",
                "در حالت ساده 68.9 درصد تصویرها کامل‌اند. بهترین راهنمایی، با مقیاسی که برای خودش برگزیده شد، به 77.8 "
                "می‌رسد (36 تصویر ترمیم و 20 تصویر خراب شد؛ p برابر 0.088) و از نظر داور دوم 85.6 در برابر 77.8 است؛ "
                "بهترینِ دو تصویر ساده 86.1 درصد دارد (p برابر 0.032). ترمیم با 100.0 درصد تأییدشده پایان می‌یابد و "
                "داور دوم 96.7 درصد آن را تأیید می‌کند. هم‌پوشانی نقشه‌ها جا افتادن شیء را پیش‌بینی می‌کند (سطح زیر "
                "منحنی برای فاصلهٔ مرکزها 0.65) و کم‌رنگ بودنشان نه (0.52).",
            ),
            verdict="not testable here",
            job="missing",
            settings={
                "runs": 3,
                "seeds": 10,
                "guidances": ("center-distance", "total-variation"),
                "scales": ("center-distance=5", "total-variation=10"),
                "guidance_scale": 1.1,
            },
            small="30 pairs of prompt and noise in place of 180, two guidances in place of four",
        ),
    ),
)
