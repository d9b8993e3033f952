"""Group 2: what negatives do for SimCLR."""

from rizbin.studies.course import Bilingual, Group, Lesson

GROUP = Group(
    number=2,
    title=Bilingual("Negatives", "نمونه‌های منفی"),
    notebook="02-negatives.ipynb",
    lessons=(
        Lesson(
            name="simclr-negatives",
            question=Bilingual("Why does SimCLR need negatives?", "چرا SimCLR به نمونه‌های منفی نیاز دارد؟"),
            reason=Bilingual(
                "Pulling two views of an image together is solved best by one point for all images, so something "
                "has to push other images away. The negatives in the denominator of the contrastive loss do that: "
                "they spread the projections over the sphere.",
                "نزدیک کردن دو نمای یک تصویر بهترین پاسخش یک نقطهٔ ثابت برای همهٔ تصویرهاست، پس چیزی باید تصویرهای "
                "دیگر را دور کند. نمونه‌های منفی در مخرج زیان تقابلی همین کار را می‌کنند: بازنمایی‌ها را روی کره "
                "پخش می‌کنند.",
            ),
            command="rizbin study collapse --seeds 3 --budget 30",
            page="collapse.html",
            number=Bilingual(
                "With negatives 54.2 percent by nearest neighbors, without them 39.1; the spread of the projections "
                "falls to 0.02 (1 is even, 0 constant), and the alarm stood in 3 of 3 seeds.",
                "با نمونه‌های منفی 54.2 درصد با نزدیک‌ترین همسایه‌ها و بدون آن‌ها 39.1 درصد؛ پراکندگی بازنمایی‌ها "
                "به 0.02 می‌افتد (1 یعنی یکنواخت و 0 یعنی ثابت) و هشدار فروپاشی در 3 بذر از 3 بذر برقرار بود.",
            ),
            verdict="shown",
            settings={"study": "collapse", "only": ("SimCLR", "SimCLR without negatives")},
            small="two of 18 variants, as many steps as the minutes allow",
        ),
    ),
)
