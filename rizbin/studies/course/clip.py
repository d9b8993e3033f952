"""Group 10: images from CLIP's gradient alone."""

from rizbin.studies.course import Bilingual, Group, Lesson

GROUP = Group(
    number=10,
    title=Bilingual("Images from CLIP", "تصویر از CLIP"),
    notebook="10-clip.ipynb",
    lessons=(
        Lesson(
            name="clip-pictures",
            question=Bilingual(
                "Do images made by CLIP's gradient alone show anything to another model?",
                "آیا تصویرهایی که تنها با گرادیان CLIP ساخته می‌شوند چیزی به مدل دیگری نشان می‌دهند؟",
            ),
            reason=Bilingual(
                "Free pixels find directions that this one encoder answers to and nobody else sees: adversarial "
                "examples. Resolutions added from coarse to fine, random copies and an encoder trained to stand "
                "small changes leave mostly directions that others see too.",
                "پیکسل‌های آزاد جهت‌هایی را پیدا می‌کنند که تنها همین رمزگذار به آن‌ها پاسخ می‌دهد و کس دیگری "
                "نمی‌بیند: نمونه‌های متخاصم. افزودن تفکیک‌پذیری از درشت به ریز، نسخه‌های تصادفی و رمزگذاری که در "
                "برابر تغییرهای کوچک مقاوم شده است بیشتر جهت‌هایی را باقی می‌گذارد که دیگران نیز می‌بینند.",
            ),
            command="rizbin study ascent",
            page="ascent.html",
            number=Bilingual(
                "Another encoder names 93 percent of them among 100 prompts, and a detector finds 46 percent of the "
                "named objects, where real scenes have 97. Of plain pixels, which score higher, 12 percent are "
                "named.",
                "رمزگذار دیگری 93 درصد آن‌ها را از میان 100 متن درست نام می‌برد و آشکارساز 46 درصد اشیای نام‌برده "
                "را پیدا می‌کند، در حالی که در صحنه‌های واقعی 97 درصد است. از پیکسل‌های آزاد، که امتیاز بالاتری "
                "می‌گیرند، 12 درصد درست نام برده می‌شود.",
            ),
            verdict="shown",
            job="ascent",
            settings={"prompts": 10, "seeds": 2, "few": 2, "paper": 3, "rebuilt": 4},
            small="10 prompts with 2 seeds in place of 50 with 3, few images of every other form",
        ),
    ),
)
