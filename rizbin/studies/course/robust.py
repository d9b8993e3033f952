"""Group 4: how much methods depend on the batch and on augmentations."""

from rizbin.studies.course import Bilingual, Group, Lesson

GROUP = Group(
    number=4,
    title=Bilingual("Batches and augmentations", "اندازهٔ دسته و داده‌افزایی"),
    notebook="04-robust.ipynb",
    lessons=(
        Lesson(
            name="byol-robust",
            question=Bilingual(
                "Why is BYOL robust to the batch size and to augmentations?",
                "چرا BYOL در برابر اندازهٔ دسته و داده‌افزایی‌ها مقاوم است؟",
            ),
            reason=Bilingual(
                "A contrastive loss is solved by whatever tells images apart: without color changes a color "
                "histogram suffices, and with few negatives the task is easy. BYOL compares no images, so what "
                "remains in one view that the other lacks has still to be predicted.",
                "زیان تقابلی با هر چیزی که تصویرها را از هم جدا کند حل می‌شود: بدون تغییر رنگ یک هیستوگرام رنگ کافی "
                "است و با نمونه‌های منفیِ کم کار آسان می‌شود. BYOL تصویرها را با هم نمی‌سنجد، پس آنچه در یک نما هست "
                "و در دیگری نیست همچنان باید پیش‌بینی شود.",
            ),
            command="rizbin study robustness --seeds 3 --budget 30",
            page="robustness.html",
            number=Bilingual(
                "Too little was learned to lose anything: SimCLR stands 6.3 and BYOL 1.3 points above raw pixels "
                "and random weights. With crops alone SimCLR gains 12.9 points and BYOL 4.1; in the paper they lose "
                "27.6 and 13.1.",
                "آنچه آموخته شد کمتر از آن بود که بتوان چیزی از دست داد: SimCLR تنها 6.3 و BYOL تنها 1.3 واحد "
                "بالاتر از پیکسل خام و وزن تصادفی است. وقتی تنها برش می‌ماند، SimCLR به اندازهٔ 12.9 و BYOL به "
                "اندازهٔ 4.1 واحد بهتر می‌شود؛ در مقاله 27.6 و 13.1 واحد از دست می‌دهند.",
            ),
            verdict="not testable here",
            settings={"study": "robustness", "only": ("SimCLR", "BYOL", "SimCLR, crop only", "BYOL, crop only")},
            small="four of 20 variants, as many steps as the minutes allow",
        ),
    ),
)
