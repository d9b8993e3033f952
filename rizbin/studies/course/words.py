"""Group 7: how words and pixels meet in Grounding DINO."""

from rizbin.studies.course import Bilingual, Group, Lesson

GROUP = Group(
    number=7,
    title=Bilingual("Words and pixels", "واژه‌ها و پیکسل‌ها"),
    notebook="07-words.ipynb",
    lessons=(
        Lesson(
            name="words-and-pixels",
            question=Bilingual(
                "How do words and pixels meet in Grounding DINO, how should it be asked, and how does it differ "
                "from DINO?",
                "واژه‌ها و پیکسل‌ها در Grounding DINO چگونه به هم می‌رسند، چگونه باید از آن پرسید و تفاوتش با DINO چیست؟",
            ),
            reason=Bilingual(
                "Text and image attend to each other in every layer of the encoder, words choose the queries, and a "
                "box's score is its likeness to a phrase's tokens; names of one prompt share its queries, and whether "
                "that costs anything is measured. It is the DETR called DINO with words, trained with boxes, and "
                "shares nothing but the name with self-distillation without labels.",
                "متن و تصویر در هر لایهٔ رمزگذار به یکدیگر توجه می‌کنند، واژه‌ها پرس‌وجوها (query) را برمی‌گزینند و "
                "امتیاز هر کادر شباهت آن به توکن‌های یک عبارت است؛ نام‌های یک پرسش پرس‌وجوهای آن را با هم شریک‌اند و "
                "اینکه این هزینه‌ای دارد یا نه سنجیده می‌شود. این همان آشکارساز DETR به نام DINO همراه با واژه است که "
                "با کادر آموزش می‌بیند و با خودتقطیرِ بی‌برچسب تنها در نام مشترک است.",
            ),
            command="rizbin study grounding --data scenes:several,seed=1 --images 1000",
            page="grounding.html",
            number=Bilingual(
                "Before any box is proposed an object's words look at its own pixels 7.3 times as densely as at the "
                "image's average in layer 1 and 8.6 times in the last, at other objects 3.0 and 1.3 times. How it "
                "should be asked is undecided: all names at once and one name a pass differ in 65 of 1752 questions; "
                "all at once is right in 35 of these (p 0.620). Matthews' correlation is 0.90 against 0.89, AP50 88.6 "
                "against 87.5. A raw score is off as a probability by 17 points, a calibrated one by 2.",
                "پیش از آنکه کادری پیشنهاد شود، واژه‌های هر شیء در لایهٔ 1 به‌اندازهٔ 7.3 برابر و در لایهٔ آخر 8.6 "
                "برابرِ میانگین تصویر به پیکسل‌های خود آن شیء می‌نگرند و به شیءهای دیگر 3.0 و 1.3 برابر. شیوهٔ بهترِ "
                "پرسیدن معلوم نشد: پرسیدن همهٔ نام‌ها با هم و پرسیدن یک نام در هر گذر در 65 پرسش از 1752 پرسش پاسخ "
                "متفاوت می‌دهند؛ در 35 تای آن‌ها همه‌باهم درست است (p برابر 0.620). همبستگی متیوز 0.90 در برابر 0.89 "
                "و AP50 برابر 88.6 در برابر 87.5 است. امتیاز خام به‌عنوان احتمال 17 واحد خطا دارد و امتیاز تنظیم‌شده "
                "2 واحد.",
            ),
            verdict="not testable here",
            job="grounding",
            settings={"images": 80},
            small="80 images in place of 1,000",
        ),
    ),
)
