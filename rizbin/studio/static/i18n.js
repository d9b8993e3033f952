// The page's words in two languages. Names of settings and commands stay as the command line has them.
const words = {
  en: {
    draw: "Draw", find: "Find", look: "Look", search: "Search", runs: "Runs", learn: "Learn",
    drawLead: "Words become a picture, step by step. Watch what the network expects at each step, and scrub back.",
    findLead: "Name what you look for. Boxes appear with a score, and each phrase has a slider that answers at once.",
    lookLead: "Click a place in a picture and see what the model finds similar, here and in a second picture.",
    searchLead: "All pictures are embedded once; then words or a picture find the nearest.",
    runsLead: "Trainings as they learn: curves, alarms in words, and one click to stop or go on.",
    learnLead: "Why do these methods work? Each question is answered by a small experiment on this machine.",
    activity: "Activity", noJobs: "Nothing has been started yet.", close: "Close", stop: "Stop", open: "Open", log: "Log",
    light: "Light", dark: "Dark", other: "فارسی", theme: "Theme", language: "Language", skip: "Skip to the panel", panels: "Panels",
    waiting: "waiting", running: "running", done: "done", failed: "failed", stopped: "stopped",
    copy: "Copy", copied: "Copied", command: "The same on the command line", model: "Model", beside: "Beside it", none: "none",
    fromWords: "Words", fromPicture: "Picture", repair: "Repair", prompt: "What to draw", promptHint: "a zebra and a frog",
    drawButton: "Draw", drawEmpty: "An empty canvas", drawEmptyHint: "Type what to draw and press Draw. The bundled model knows sixteen objects: try “a zebra and a frog”, or three seeds at once.",
    seen: "Expected", noisy: "Noisy", stepOf: "Step {step} of {total}", result: "Result", more: "More settings", seeds: "Results",
    repairHint: "A detector checks each object; what is missing is drawn again until all is there.", stages: "Stages", here: "there", notWhole: "An object is missing in the end.", whole: "All objects are there.",
    pictures: "Pictures", drop: "Drop pictures here, or", choose: "choose files", scene: "Take a scene", noPictures: "No pictures yet. Take a scene of the embedded world, or drop some of your own.",
    second: "2nd", pickSecond: "Compare with a second picture", similar: "Similar", attention: "Attention", colors: "Colors", words: "Words",
    lookEmpty: "Choose a picture", lookEmptyHint: "Take a scene or drop a picture at the left. Then click a patch, or move with the arrow keys.",
    opacity: "Strength of the overlay", threshold: "Threshold", whichWords: "Words, parted by commas", layer: "Layer", mean: "mean", head: "head {n}", apply: "Show",
    phrases: "What to look for, one phrase a line", phrasesHint: "an elephant\nan octopus", distractors: "What might be mistaken for it", findButton: "Find",
    findEmpty: "What are you looking for?", findEmptyHint: "Choose a picture, write one phrase a line, press Find. The bundled detector knows the 172 drawings of the embedded world by name.",
    present: "present", absent: "absent", unsure: "unsure", boxesCount: "Boxes: {n}", export: "Export COCO", why: "Why these boxes?", all: "Find in all pictures",
    boxHelp: "Drag on the picture to add a box, drag a corner to correct one, press Delete to remove it.", forPhrase: "New boxes are", looksLike: "How much each place looks like the phrase",
    honest: "What the map marks matters to the box ({without} without it, {elsewhere} with as much gray elsewhere).", dishonest: "The map does not show what matters here.",
    query: "Words to search for", queryHint: "an octopus", searchButton: "Search", searchEmpty: "Nothing to search through yet", searchEmptyHint: "Add pictures at the left, or twelve scenes with one click. Then search by words, or click a picture to find what is like it.",
    like: "Like this picture", twelve: "Add twelve scenes", nearest: "Nearest to “{what}”", thePicture: "the picture",
    newRun: "New training", method: "Method", start: "Start", resume: "Go on", report: "Report", metric: "Number", smooth: "Smoothing", log10: "Logarithmic",
    numbersSoon: "The first numbers appear here when the first steps have been made.", runsEmpty: "No runs in this folder yet", runsEmptyHint: "Start a training at the left: the defaults learn on the embedded world and finish in minutes. Its curves appear here as it learns.", finished: "finished", steps: "{n} steps",
    stillsTitle: "The same scenes at each checkpoint", stillsHint: "The first scenes of its test data, none chosen. A run keeps its newest checkpoints (“keep checkpoints” says how many); images made here stay.",
    stillsWait: "The images of this checkpoint are being made …", checkpoint: "Checkpoint", run: "Run", atStep: "Step {step}", untrained: "Step 0, before the first update",
    "still-image": "Image", "still-truth": "Truth", "still-attention": "Attention", "still-removed": "Hidden patches", "still-reconstruction": "Reconstruction", "still-words": "Words", "still-found": "Boxes", "still-drawn": "Drawn",
    answer: "Answer it", minutes: "Minutes", seedsCount: "Seeds", result2: "Open the answer", learnHint: "Minutes are shared by all runs of an experiment; more give a surer answer.",
    token: "This page needs the link that rizbin studio printed", tokenHint: "The link holds a token that is new at each start. Copy it from the terminal and open it here.", lost: "The server is away; this page goes on when it is back.",
    settings: "Settings", ago: "{n} ago", example: "Try it", removePicture: "Remove the picture",
  },
  fa: {
    draw: "رسم", find: "یافتن", look: "دیدن", search: "جست‌وجو", runs: "آموزش‌ها", learn: "یادگیری",
    drawLead: "واژه‌ها گام‌به‌گام تصویر می‌شوند. ببینید شبکه در هر گام چه انتظاری دارد و به عقب برگردید.",
    findLead: "بنویسید دنبال چه هستید. کادرها با امتیاز پیدا می‌شوند و لغزندهٔ هر عبارت بی‌درنگ پاسخ می‌دهد.",
    lookLead: "جایی از تصویر را بزنید و ببینید مدل چه چیزهایی را، در همین تصویر و در تصویری دیگر، شبیه آن می‌داند.",
    searchLead: "همهٔ تصویرها یک بار کدگذاری می‌شوند؛ سپس با واژه یا با تصویر، نزدیک‌ترین‌ها را بیابید.",
    runsLead: "آموزش‌ها را هنگام یادگیری ببینید: نمودار، هشدار به زبان ساده، و توقف یا ادامه با یک کلیک.",
    learnLead: "این روش‌ها چرا کار می‌کنند؟ هر پرسش با آزمایشی کوچک روی همین رایانه پاسخ داده می‌شود.",
    activity: "کارها", noJobs: "هنوز کاری آغاز نشده است.", close: "بستن", stop: "توقف", open: "باز کردن", log: "گزارش خام",
    light: "روشن", dark: "تیره", other: "English", theme: "پوسته", language: "زبان", skip: "رفتن به صفحه", panels: "بخش‌ها",
    waiting: "در صف", running: "در حال اجرا", done: "انجام شد", failed: "ناموفق", stopped: "متوقف شد",
    copy: "رونوشت", copied: "رونوشت شد", command: "همین کار در خط فرمان", model: "مدل", beside: "در کنار آن", none: "هیچ‌کدام",
    fromWords: "واژه", fromPicture: "تصویر", repair: "ترمیم", prompt: "چه چیزی رسم شود", promptHint: "a zebra and a frog",
    drawButton: "رسم کن", drawEmpty: "بوم خالی", drawEmptyHint: "بنویسید چه رسم شود و دکمهٔ رسم را بزنید. مدلِ همراه، شانزده چیز را به انگلیسی می‌شناسد؛ نمونه: «a zebra and a frog».",
    seen: "تصویر موردانتظار", noisy: "نویزدار", stepOf: "گام {step} از {total}", result: "نتیجه", more: "تنظیم‌های بیشتر", seeds: "نتیجه‌ها",
    repairHint: "یک آشکارساز تک‌تک چیزها را بررسی می‌کند و آنچه نیست دوباره رسم می‌شود تا همه باشند.", stages: "مرحله‌ها", here: "هست", notWhole: "در پایان چیزی کم است.", whole: "همهٔ چیزها هستند.",
    pictures: "تصویرها", drop: "تصویرها را اینجا رها کنید، یا", choose: "پرونده انتخاب کنید", scene: "یک صحنه بردار", noPictures: "هنوز تصویری نیست. یک صحنهٔ آماده بردارید یا تصویر خودتان را رها کنید.",
    second: "دوم", pickSecond: "سنجش با تصویر دوم", similar: "شباهت", attention: "توجه", colors: "رنگ‌ها", words: "واژه‌ها",
    lookEmpty: "تصویری انتخاب کنید", lookEmptyHint: "یک صحنه بردارید یا تصویری رها کنید. سپس یک تکه را بزنید، یا با کلیدهای جهت‌نما جابه‌جا شوید.",
    opacity: "شدت پوشش", threshold: "آستانه", whichWords: "واژه‌ها، جداشده با ویرگول", layer: "لایه", mean: "میانگین", head: "سر {n}", apply: "نشان بده",
    phrases: "دنبال چه هستید؟ هر سطر یک عبارت", phrasesHint: "an elephant\nan octopus", distractors: "با چه چیزی ممکن است اشتباه شود", findButton: "بیاب",
    findEmpty: "دنبال چه می‌گردید؟", findEmptyHint: "تصویری برگزینید، در هر سطر یک عبارت بنویسید و دکمه را بزنید. آشکارسازِ همراه، ۱۷۲ نقاشی را به نام انگلیسی می‌شناسد.",
    present: "هست", absent: "نیست", unsure: "نامطمئن", boxesCount: "{n} کادر", export: "خروجی COCO", why: "چرا این کادرها؟", all: "یافتن در همهٔ تصویرها",
    boxHelp: "برای افزودن کادر روی تصویر بکشید، برای اصلاح گوشه را بکشید، و با کلید Delete پاک کنید.", forPhrase: "کادرهای تازه برای", looksLike: "هر جا چقدر شبیه عبارت است",
    honest: "آنچه نقشه نشان می‌دهد برای کادر مهم است ({without} بدون آن، {elsewhere} با همان‌قدر خاکستری در جای دیگر).", dishonest: "این نقشه آنچه را مهم است نشان نمی‌دهد.",
    query: "واژه‌های جست‌وجو", queryHint: "an octopus", searchButton: "بگرد", searchEmpty: "هنوز چیزی برای گشتن نیست", searchEmptyHint: "تصویر بیفزایید، یا با یک کلیک دوازده صحنه. سپس با واژه بگردید یا تصویری را بزنید تا شبیه‌هایش را بیابید.",
    like: "شبیه این تصویر", twelve: "افزودن دوازده صحنه", nearest: "نزدیک‌ترین‌ها به «{what}»", thePicture: "این تصویر",
    newRun: "آموزش تازه", method: "روش", start: "آغاز", resume: "ادامه", report: "گزارش", metric: "سنجه", smooth: "هموارسازی", log10: "لگاریتمی",
    numbersSoon: "نخستین عددها پس از نخستین گام‌ها همین‌جا دیده می‌شوند.", runsEmpty: "هنوز آموزشی در این پوشه نیست", runsEmptyHint: "یک آموزش آغاز کنید: پیش‌فرض‌ها با صحنه‌های آماده در چند دقیقه یاد می‌گیرند و نمودارشان همین‌جا زنده دیده می‌شود.", finished: "پایان‌یافته", steps: "{n} گام",
    stillsTitle: "همان صحنه‌ها در هر نقطهٔ ذخیره", stillsHint: "نخستین صحنه‌های دادهٔ آزمون، بی هیچ گزینشی. هر آموزش تازه‌ترین نقطه‌های ذخیره را نگه می‌دارد (تعدادش با keep checkpoints)؛ تصویرهایی که اینجا ساخته شوند می‌مانند.",
    stillsWait: "تصویرهای این نقطه در حال ساخته شدن است …", checkpoint: "نقطهٔ ذخیره", run: "آموزش", atStep: "گام {step}", untrained: "گام ۰، پیش از نخستین به‌روزرسانی",
    "still-image": "تصویر", "still-truth": "حقیقت", "still-attention": "توجه", "still-removed": "تکه‌های پنهان", "still-reconstruction": "بازسازی", "still-words": "واژه‌ها", "still-found": "کادرها", "still-drawn": "رسم",
    answer: "پاسخش را بیاب", minutes: "دقیقه", seedsCount: "تعداد بذر", result2: "دیدن پاسخ", learnHint: "زمان میان همهٔ اجراهای یک آزمایش بخش می‌شود؛ زمان بیشتر، پاسخ مطمئن‌تر.",
    token: "این صفحه به پیوندی نیاز دارد که rizbin studio چاپ کرد", tokenHint: "در آن پیوند نشانه‌ای است که با هر آغاز تازه می‌شود. آن را از پایانه رونوشت کنید و همین‌جا باز کنید.", lost: "کارساز در دسترس نیست؛ با بازگشتش این صفحه ادامه می‌دهد.",
    settings: "تنظیم‌ها", ago: "{n} پیش", example: "نمونه", removePicture: "حذف تصویر",
  },
};
export const language = () => localStorage.getItem("rizbin-language") ?? (navigator.language?.startsWith("fa") ? "fa" : "en");
export function setLanguage(name) {
  localStorage.setItem("rizbin-language", name);
  document.documentElement.lang = name;
  document.documentElement.dir = name === "fa" ? "rtl" : "ltr";
}
export function t(key, values = {}) {
  const held = words[language()][key] ?? words.en[key] ?? key;
  return held.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === "number" ? number(values[name]) : values[name] ?? ""));
}
export const number = (value, digits = 0) => new Intl.NumberFormat(language(), { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
setLanguage(language());
