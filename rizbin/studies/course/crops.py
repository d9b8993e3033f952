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
            command="rizbin study crops --seeds 3 --budget 30",
            page="crops.html",
            number=Bilingual(
                "Drawing small crops to the large ones is worth 6.2 points of k-NN. The repulsion did not arrive: "
                "the cosine of two small crops is 0.743 with it and 0.743 without.",
                "نزدیک کردن برش‌های کوچک به برش‌های بزرگ 6.2 واحد k-NN ارزش دارد. دافعه عملاً اعمال نشد: کسینوس دو "
                "برش کوچک با آن 0.743 و بدون آن 0.743 است.",
            ),
            verdict="not testable here",
            settings={
                "study": "crops",
                "only": ("LoGo, learned affinity", "LoGo, cosine", "LoGo, no repulsion"),
            },
            small="three of 9 variants, as many steps as the minutes allow",
        ),
    ),
)
