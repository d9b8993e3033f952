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
            command="rizbin study negatives --seeds 3 --precision bf16",
            page="negatives.html",
            number=Bilingual(
                "With 126 negatives a view 58.5 percent by nearest neighbors, with one 50.3, with none 38.5 (raw "
                "pixels 29.3). With all of them uniformity, which is lower the more evenly the sphere is filled, is "
                "-2.95, without any -0.13; of five temperatures 0.2 has the highest mean.",
                "با 126 نمونهٔ منفی برای هر نما 58.5 درصد با نزدیک‌ترین همسایه‌ها، با یک نمونه 50.3 و بدون هیچ نمونه‌ای "
                "38.5 درصد (پیکسل‌های خام 29.3). یکنواختی، که هرچه کره یکنواخت‌تر پر شود کمتر است، با همهٔ آن‌ها -2.95 "
                "و بدون آن‌ها -0.13 است؛ از میان پنج دما، 0.2 بالاترین میانگین را دارد.",
            ),
            verdict="shown",
            settings={"study": "negatives", "only": ("126 negatives, temperature 0.2", "no negatives")},
            small="two of 11 variants, as many steps as the minutes allow",
        ),
    ),
)
