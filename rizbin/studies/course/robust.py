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
                "A contrastive loss is solved by whatever tells images apart: on photographs whose colors are left "
                "as they are a color histogram suffices, and with few negatives the task is easy. BYOL compares no "
                "images, and its target holds more than color, all of which has to be predicted.",
                "زیان تقابلی با هر چیزی که تصویرها را از هم جدا کند حل می‌شود: در عکس‌هایی که رنگشان دست نمی‌خورد یک "
                "هیستوگرام رنگ کافی است و با نمونه‌های منفیِ کم کار آسان می‌شود. BYOL تصویرها را با هم نمی‌سنجد، و هدف "
                "آن چیزی بیش از رنگ دارد که همه‌اش باید پیش‌بینی شود.",
            ),
            command="rizbin study robustness --seeds 3 --precision bf16",
            page="robustness.html",
            number=Bilingual(
                "This verdict is of augmentations. That crops alone cost both, and SimCLR more, does not show. Both "
                "have learned enough to lose something (SimCLR stands 17.9 points above raw pixels and random "
                "weights, BYOL 6.7), and both gain with crops alone: 9.3 and 7.6 points, where the paper loses 27.6 "
                "and 13.1. Color alone then finds 65 percent of the partners in a batch, so that a third is left to "
                "other cues. Of the batch three seeds cannot tell (rizbin study batches).",
                "این حکم دربارهٔ داده‌افزایی است. اینکه تنها با برش هر دو چیزی از دست بدهند، و SimCLR بیشتر، دیده "
                "نشد. هر دو آن‌قدر آموخته‌اند که چیزی برای از دست دادن داشته باشند (SimCLR به اندازهٔ 17.9 و BYOL به "
                "اندازهٔ 6.7 واحد بالاتر از پیکسل خام و وزن تصادفی است) و وقتی تنها برش می‌ماند هر دو بهتر می‌شوند: "
                "9.3 و 7.6 واحد، در حالی که در مقاله 27.6 و 13.1 واحد از دست می‌رود. در این حالت رنگ به‌تنهایی 65 "
                "درصد جفت‌ها را در دسته پیدا می‌کند، پس یک‌سوم کار برای نشانه‌های دیگر می‌ماند. دربارهٔ اندازهٔ دسته "
                "سه بذر تصادفی نمی‌توانند چیزی بگویند (rizbin study batches).",
            ),
            verdict="refuted here",
            settings={"study": "robustness", "only": ("SimCLR", "BYOL", "SimCLR, crop only", "BYOL, crop only")},
            small="four of 14 variants, as many steps as the minutes allow",
        ),
    ),
)
