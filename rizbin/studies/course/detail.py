"""Group 1: what DetailCLIP's three techniques do for detail, and what a plain classifier misses."""

from rizbin.studies.course import Bilingual, Group, Lesson

GROUP = Group(
    number=1,
    title=Bilingual("Why details survive", "چرا جزئیات باقی می‌ماند"),
    notebook="01-detail.ipynb",
    lessons=(
        Lesson(
            name="patch-detail",
            question=Bilingual(
                "Why do a patch-level teacher and student keep detail, how do the three techniques of DetailCLIP "
                "complete each other, and what does a plain classifier miss?",
                "چرا معلم و دانش‌آموزِ سطح وصله جزئیات را نگه می‌دارند، سه شگرد DetailCLIP چگونه یکدیگر را کامل "
                "می‌کنند و یک دسته‌بند ساده چه چیزی را از دست می‌دهد؟",
            ),
            reason=Bilingual(
                "A caption and a class name speak of the whole image, so nothing in their loss asks a single patch "
                "to know what lies on it. A teacher that is a moving average gives every hidden patch a target of "
                "its own, token removal decides which patches meet the caption, and reconstruction asks for the "
                "pixels of hidden patches.",
                "شرح تصویر و نام دسته دربارهٔ کل تصویر حرف می‌زنند و تابع زیانشان از هیچ وصله‌ای نمی‌خواهد بداند "
                "چه چیزی روی آن است. معلمی که میانگین متحرک دانش‌آموز است برای هر وصلهٔ پنهان هدفی جداگانه "
                "می‌سازد، حذف توکن تعیین می‌کند کدام وصله‌ها با شرح سنجیده شوند و بازسازی پیکسل‌های وصله‌های "
                "پنهان را می‌خواهد.",
            ),
            command="rizbin study components --seeds 3 --precision bf16",
            page="components.html",
            number=Bilingual(
                "Self-distillation does not raise linear mIoU by a point (-0.3); whether token removal does "
                "(+0.3), three seeds cannot tell, and the objects that reconstruction hides it does not predict. "
                "All three together stand 3.3 points under 2.5 times the steps without them; a step with all "
                "three costs 2.2 of those without. By a linear probe the classifier does not miss what patches "
                "are: its mIoU is 39.3 against 37.8; what it lacks is words.",
                "خودتقطیری mIoU خطی را یک واحد هم بالا نمی‌برد (-0.3)؛ سه بذر تصادفی نمی‌توانند بگویند که حذف "
                "توکن (+0.3) چنین می‌کند یا نه، و بازسازی اشیایی را که پنهان می‌کند پیش‌بینی نمی‌کند. هر سه با "
                "هم 3.3 واحد کمتر از آموزشی با 2.5 برابر گام بدون آن‌ها دارند؛ یک گام با هر سه به اندازهٔ 2.2 "
                "گام هزینه دارد. با کاوشگر خطی، دسته‌بند در این‌جا چیستی وصله‌ها را از دست نمی‌دهد: mIoU آن 39.3 "
                "در برابر 37.8 است؛ آنچه ندارد واژه است.",
            ),
            verdict="not testable here",
            settings={
                "study": "components",
                "only": (
                    "CLIP and phrases",
                    "and token removal, self-distillation, reconstruction",
                ),
                "start_steps": 150,
                "images": 200,
            },
            small="two of 12 branches, from a start of 150 steps in place of 700, measured on 200 images",
        ),
        Lesson(
            name="regions",
            question=Bilingual(
                "How are the regions chosen that meet the caption, and what does choosing do?",
                "ناحیه‌هایی که با شرح تصویر سنجیده می‌شوند چگونه انتخاب می‌شوند و این انتخاب چه اثری دارد؟",
            ),
            reason=Bilingual(
                "The teacher's [CLS] attention ranks the patches, and the least attended half is left out, which "
                "saves time and may keep the background from the caption. Whether that helps depends on two "
                "numbers: how many object pixels the kept half holds, and how much of the scene the caption never "
                "names.",
                "توجه [CLS] در شبکهٔ معلم وصله‌ها را رتبه‌بندی می‌کند و نیمهٔ کم‌توجه کنار گذاشته می‌شود؛ این کار "
                "وقت را کم می‌کند و شاید پس‌زمینه را از شرح دور نگه دارد. سودمند بودن آن به دو عدد بسته است: نیمهٔ "
                "نگه‌داشته‌شده چند درصد پیکسل‌های اشیا را دارد و شرح از چه مقدار صحنه هرگز نام نمی‌برد.",
            ),
            command="rizbin study tokens --seeds 3 --precision bf16",
            page="tokens.html",
            number=Bilingual(
                "Leaving out the least attended half does not raise top-1. The attended half holds 69 to 87 "
                "percent of the named objects' pixels (chance 56), and still costs zero-shot top-1: -2.0 points "
                "without distractors, -7.3 with up to 8. It beats a random half by 2.5 to 3.9 points.",
                "کنار گذاشتن نیمهٔ کم‌توجه دقت را بالا نمی‌برد. نیمهٔ پرتوجه 69 تا 87 درصد پیکسل‌های اشیای "
                "نام‌برده را دارد (تصادفی 56) و با این همه از دقت صفرنمونه‌ای می‌کاهد: -2.0 واحد بدون اشیای "
                "نام‌نبرده و -7.3 واحد با حداکثر 8 شیء نام‌نبرده. از نیمهٔ تصادفی 2.5 تا 3.9 واحد بهتر است.",
            ),
            verdict="refuted here",
            settings={
                "study": "tokens",
                "only": (
                    "all tokens, up to 8 distractors",
                    "half, by attention, up to 8 distractors",
                    "half, at random, up to 8 distractors",
                ),
                "start_steps": 150,
                "images": 200,
            },
            small="three of 12 branches, from a start of 150 steps in place of 700, measured on 200 images",
        ),
        Lesson(
            name="reconstruction",
            question=Bilingual(
                "What is predicting pixels worth, from hidden patches and from a low resolution, and which objects "
                "gain?",
                "پیش‌بینی پیکسل‌ها، از وصله‌های پنهان و از تفکیک‌پذیری پایین، چه ارزشی دارد و کدام اشیا سود می‌برند؟",
            ),
            reason=Bilingual(
                "To paint a hidden patch an encoder has to know the texture and the edges that a caption never "
                "mentions. That teaches something only if objects are among what is hidden, and if the prediction "
                "beats the mean of the neighbors, which needs no encoder.",
                "رمزگذار برای نقاشی وصلهٔ پنهان باید بافت و لبه‌هایی را بشناسد که شرح هرگز از آن‌ها نمی‌گوید. این "
                "تنها زمانی چیزی می‌آموزد که اشیا نیز جزو بخش پنهان باشند و پیش‌بینی از میانگین همسایه‌ها، که به "
                "رمزگذار نیازی ندارد، بهتر باشد.",
            ),
            command="rizbin study reconstruction --seeds 3 --precision bf16",
            page="reconstruction.html",
            number=Bilingual(
                "The least error on hidden object patches is 0.98, where the mean of the visible neighbors has "
                "0.91, so that what predicting pixels is worth stays open. The paper's rule hides 10 percent of "
                "the object pixels, a random one 44. From half the resolution 0.01 dB more come back than by "
                "bicubic enlargement, and no kind of object is localized more often beyond the spread.",
                "کمترین خطا روی وصله‌های پنهانِ اشیا 0.98 است، در حالی که میانگین همسایه‌های دیده‌شده 0.91 دارد: "
                "پس ارزش پیش‌بینی پیکسل‌ها نامعلوم می‌ماند. قاعدهٔ مقاله 10 درصد پیکسل‌های اشیا را پنهان می‌کند "
                "و انتخاب تصادفی 44 درصد. از نصف تفکیک‌پذیری تنها 0.01 dB بیش از بزرگ‌نمایی دومکعبی بازمی‌گردد و "
                "هیچ گونه‌ای از اشیا بیرون از پراکندگی بذرها بیشتر پیدا نمی‌شود.",
            ),
            verdict="not testable here",
            settings={
                "study": "reconstruction",
                "only": ("no pixel term", "random patches hidden", "least attended patches hidden (paper)"),
                "start_steps": 150,
                "images": 200,
            },
            small="three of 5 branches, from a start of 150 steps in place of 700, measured on 200 images",
        ),
    ),
)
