"""Languages of the start page: its texts are English, with a table of each in Korean."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Request

LANGUAGES = {"en": "English", "ko": "한국어"}

KOREAN = {
    "Ask the stack what the service is doing, or break the service and watch the stack notice.": (
        "서비스가 지금 무엇을 하는지 스택에 물어보거나, 서비스를 고장 내고 스택이 알아채는지 지켜보세요."
    ),
    "Now": "지금",
    "all of it": "전체 보기",
    "State": "상태",
    "Requests/s": "초당 요청",
    "Errors": "오류율",
    "Requests": "요청 수",
    "Try it": "시험해 보기",
    "{path}, 100 times": "{path}, 100번",
    "Answer of {path}": "{path}의 응답",
    "Figures and buttons need JavaScript.": "수치와 버튼에는 JavaScript가 필요합니다.",
    "{monitoring} has the figures without it, and the paths can be opened in the address bar.": (
        "JavaScript 없이도 {monitoring}에서 수치를 볼 수 있고, 경로는 주소창에서 직접 열 수 있습니다."
    ),
    "Not running here.": "여기서는 실행되고 있지 않습니다.",
    "Compose has it: {command}. Where {make} finds none, {file} says why.": (
        "Compose로 실행할 수 있습니다: {command}. {make}가 찾지 못했다면 그 이유가 {file}에 있습니다."
    ),
    # What the buttons do.
    "Answers at once.": "즉시 응답합니다.",
    "Answers after 1 to 3 seconds, or as seconds= in the query says; on= says what it waits for.": (
        "1~3초 뒤에 응답합니다. 쿼리의 seconds=로 시간을, on=으로 무엇을 기다릴지 정합니다."
    ),
    "Raises a ValueError that nobody handles.": "아무도 처리하지 않는 ValueError를 일으킵니다.",
    "Answers 404 from a route that exists.": "존재하는 라우트에서 404로 응답합니다.",
    "Answers 500 without an exception of its own.": "예외 없이 500으로 응답합니다.",
    "Sends its answer in ten chunks over a second.": "응답을 1초 동안 열 조각으로 나누어 보냅니다.",
    "Gives no answer for 2 minutes, or as long as seconds= in the query says.": (
        "2분 동안, 또는 쿼리의 seconds=만큼 응답하지 않습니다."
    ),
    "Ends its worker with a segmentation fault; another one takes its place.": (
        "세그멘테이션 오류로 워커를 끝냅니다. 다른 워커가 그 자리를 대신합니다."
    ),
    # What happens next.
    "It is counted, timed and among the latest requests of /monitoring.": (
        "횟수와 시간이 측정되고 /monitoring의 최근 요청에 나타납니다."
    ),
    "It is among the slow requests of /monitoring, with the function that it waited in.": (
        "/monitoring의 느린 요청에, 기다린 함수와 함께 나타납니다."
    ),
    "A hundred: FlaskErrorBurst fires within a minute. /monitoring has the traceback.": (
        "100번이면 1분 안에 FlaskErrorBurst 알림이 울립니다. 트레이스백은 /monitoring에 있습니다."
    ),
    "It is counted, but is the client's mistake: no alert fires.": (
        "횟수는 측정되지만 클라이언트의 실수이므로 알림은 울리지 않습니다."
    ),
    "A hundred: FlaskErrorBurst fires within a minute. There is no exception to group.": (
        "100번이면 1분 안에 FlaskErrorBurst 알림이 울립니다. 묶을 예외는 없습니다."
    ),
    "It is timed until its last chunk, not until its first.": (
        "첫 조각이 아니라 마지막 조각까지의 시간이 측정됩니다."
    ),
    "It is in progress on /monitoring with its age; in two minutes FlaskRequestStuck fires.": (
        "/monitoring의 진행 중인 요청에 경과 시간과 함께 나타나고, 2분 뒤 FlaskRequestStuck 알림이 울립니다."
    ),
    "/monitoring has its death. A browser may ask again, and then a second worker dies.": (
        "/monitoring에 그 죽음이 나타납니다. 브라우저가 다시 요청하면 워커가 하나 더 죽습니다."
    ),
    # Parts and their links; the names are those on the pages themselves.
    "What happens now?": "지금 무슨 일이 일어나는가?",
    "What does Prometheus read?": "Prometheus는 무엇을 읽는가?",
    "Is it healthy, and how many requests fail?": "정상인가, 요청이 얼마나 실패하는가?",
    "Does the process answer?": "프로세스가 응답하는가?",
    "May traffic be sent here?": "트래픽을 보내도 되는가?",
    "What happened since the start?": "시작 이후 무슨 일이 있었는가?",
    "Which requests came last?": "최근에 어떤 요청이 왔는가?",
    "Which endpoint is slow or fails?": "어느 엔드포인트가 느리거나 실패하는가?",
    "What has been ordered?": "무엇이 주문되었는가?",
    "What does this expression say?": "이 식의 값은 무엇인가?",
    "Is everything scraped?": "모두 수집되고 있는가?",
    "What is computed and watched?": "무엇을 계산하고 감시하는가?",
    "What fires, or is about to?": "어떤 알림이 울리거나 곧 울리는가?",
    "Who is being told what?": "누구에게 무엇을 알리는가?",
    "What is being kept quiet?": "어떤 알림을 꺼 두었는가?",
    "Is it healthy?": "정상인가?",
    "Which error, since when?": "어떤 오류가 언제부터인가?",
    "Which requests exactly?": "정확히 어떤 요청인가?",
    "How much of the error budget is left?": "오류 예산이 얼마나 남았는가?",
    "What is running out?": "무엇이 바닥나고 있는가?",
    "Can these figures be trusted?": "이 수치를 믿을 수 있는가?",
}
"""The Korean of each text."""

KOREAN_SCRIPT = {
    "waiting…": "기다리는 중…",
    "no answer": "응답 없음",
    "{status} after {milliseconds} ms": "{status}, {milliseconds} ms 뒤",
    "{answers} of {times}…": "{times}번 중 {answers}번…",
    "healthy": "정상",
    "warning": "주의",
    "degraded": "저하됨",
    "unhealthy": "비정상",
}
"""The Korean of each text that the page's script shows."""


def preferred(request: Request) -> str:
    """The language that a request asks for: `lang=` in its query, or its header Accept-Language."""
    language = request.args.get("lang", "")
    return language if language in LANGUAGES else request.accept_languages.best_match(LANGUAGES, "en")


def texts(language: str) -> Mapping[str, str]:
    """The translations of the page into a language; none into English."""
    return KOREAN if language == "ko" else {}


def script_texts(language: str) -> Mapping[str, str]:
    """The translations of what its script shows."""
    return KOREAN_SCRIPT if language == "ko" else {}
