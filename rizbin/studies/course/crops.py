"""Group 5: what local and global crops do to each other in LoGo."""

from rizbin.studies.course import Bilingual, Group, Lesson

GROUP = Group(
    number=5,
    title=Bilingual("Local and global crops", "برش‌های محلی و سراسری"),
    notebook="05-crops.ipynb",
    lessons=(
        Lesson(
            name="local-crops",
            question=Bilingual(
                "Why should local crops attract the global ones and repel each other?",
                "چرا برش‌های محلی باید به برش‌های سراسری نزدیک و از یکدیگر دور شوند؟",
            ),
            reason=Bilingual(
                "A global crop shows what a local one shows and more, so drawing the two together is right. Two "
                "local crops of one image may show different objects, and pulling them together would teach that "
                "these are the same (LoGo).",
                "برش سراسری هر چه را برش محلی نشان می‌دهد و بیش از آن را نشان می‌دهد، پس نزدیک کردن این دو درست "
                "است. دو برش محلی از یک تصویر ممکن است دو شیء متفاوت را نشان دهند و نزدیک کردنشان می‌آموزد که آن دو "
                "یکی‌اند (LoGo).",
            ),
            command="rizbin study repulsion --seeds 6 --precision bf16",
            page="repulsion.html",
            number=Bilingual(
                "Drawing small crops to the large ones is worth 3.0 points of a probe that names all objects of a "
                "scene (36.7 against 33.6). Of two small crops that both show an object 49 percent show different "
                "ones, and the repulsion arrives: their cosine falls from 0.763 to 0.242 with the dose. A little of "
                "it helps, by less than the 1 point that would matter: the probe has 37.2 with the smallest dose (0.5 "
                "points, beyond the spread of 6 seeds; three seeds could not tell and three more were added), 37.3 "
                "with the middle one and 36.2 with the largest. Whether it helps by telling objects apart was not "
                "tested.",
                "نزدیک کردن برش‌های کوچک به برش‌های بزرگ 3.0 واحد به کاوشگری می‌افزاید که همهٔ اشیای صحنه را نام "
                "می‌برد (36.7 در برابر 33.6). از دو برش کوچک که هر دو شیئی را نشان می‌دهند در 49 درصد موارد دو شیء "
                "متفاوت دیده می‌شود و دافعه هم اعمال شده است: کسینوس آن‌ها با افزایش مقدار از 0.763 به 0.242 می‌رسد. "
                "کمی از آن سودمند است، کمتر از 1 واحدی که مهم به شمار آید: کاوشگر با کمترین مقدار 37.2 دارد (0.5 "
                "واحد، بیرون از پراکندگی 6 بذر تصادفی؛ با سه بذر معلوم نشد و سه بذر دیگر افزوده شد)، با مقدار میانی "
                "37.3 و با بیشترین مقدار 36.2. اینکه سود آن از جدا کردن اشیا می‌آید یا نه آزموده نشد.",
            ),
            verdict="shown",
            settings={"study": "repulsion", "only": ("no repulsion", "cosine repels, 0.3")},
            small="two of 7 variants, as many steps as the minutes allow",
        ),
    ),
)
