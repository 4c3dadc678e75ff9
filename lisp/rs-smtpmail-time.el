;;; rs-smtpmail-time.el --- Read times as people write them  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The times at which mail is to be sent: strictly, for a time that is misread
;; would send a mail when nobody wants it sent.

;;; Code:

(require 'parse-time)
(require 'time-date)
(eval-when-compile (require 'cl-lib))

(defconst rs-smtpmail--morning 8
  "The hour that is meant by a day without a time.")

(defconst rs-smtpmail--units
  '(("\\`\\(?:m\\|mins?\\|minutes?\\)\\'" :seconds 60)
    ("\\`\\(?:h\\|hours?\\)\\'" :seconds 3600)
    ("\\`\\(?:d\\|days?\\)\\'" :days 1)
    ("\\`\\(?:w\\|weeks?\\)\\'" :days 7)
    ("\\`\\(?:M\\|months?\\)\\'" :months 1)
    ("\\`\\(?:[yY]\\|years?\\)\\'" :months 12))
  "Regexps for units of time, and what one of them is.")

(defun rs-smtpmail--parse-time (text &optional now)
  "Return the time that TEXT names, seen from NOW, or signal an error.
It may be a delay such as \"5h\", \"+90 min\", \"in 3 days\" or \"1d 12h\"; a
time such as \"16:30\" or \"4pm\"; a day, with or without a time, such as
\"tomorrow 9:00\", \"mon\" or \"2026-12-01 08:00\"; or a complete date as in
ISO 8601 or in mail."
  (let ((text (string-trim text))
        (now (or now (current-time)))
        (case-fold-search t))
    (or (and (string-match-p "\\`now\\'" text) now)
        (rs-smtpmail--parse-delay text now)
        (rs-smtpmail--parse-mail-date text)
        (rs-smtpmail--parse-day-and-time text now)
        (user-error "There is no time in %S; say for example \"16:30\", \"5h\", \
\"tomorrow 9:00\", \"mon 8:00\" or \"2026-12-01 08:00\"" text))))

(defun rs-smtpmail--parse-delay (text now)
  "Return the time that the delay TEXT after NOW ends, or nil if it is none."
  (let ((rest (replace-regexp-in-string "\\`\\(?:in[ \t]+\\|\\+[ \t]*\\)" "" text))
        (case-fold-search nil)
        sum)
    (while (and rest
                (string-match "\\`\\([0-9]\\{1,5\\}\\)[ \t]*\\([a-zA-Z]+\\)\
\\(?:[ \t]*,[ \t]*\\|[ \t]+and[ \t]+\\|[ \t]*\\)" rest))
      (let* ((count (string-to-number (match-string 1 rest)))
             (name (match-string 2 rest))
             (end (match-end 0))
             (unit (cdr (seq-find (lambda (unit) (string-match-p (car unit) name))
                                  rs-smtpmail--units))))
        (setq rest (and unit (substring rest end)))
        (when unit
          (setq sum (plist-put sum (car unit)
                               (+ (or (plist-get sum (car unit)) 0)
                                  (* count (cadr unit))))))))
    (when (and sum (equal rest ""))
      (rs-smtpmail--time-after now
                               (or (plist-get sum :months) 0)
                               (or (plist-get sum :days) 0)
                               (or (plist-get sum :seconds) 0)))))

(defun rs-smtpmail--time-after (now months days seconds)
  "Return the time MONTHS, then DAYS, then SECONDS after NOW.
Months and days keep the time of day, whatever the clocks do."
  (let* ((date (decode-time now))
         (month (+ months (decoded-time-month date) -1))
         (year (+ (decoded-time-year date) (/ month 12)))
         (month (1+ (mod month 12)))
         (day (min (decoded-time-day date) (date-days-in-month year month))))
    (time-add (encode-time (list (decoded-time-second date)
                                 (decoded-time-minute date)
                                 (decoded-time-hour date)
                                 (+ day days) month year nil -1 nil))
              seconds)))

(defun rs-smtpmail--parse-mail-date (text)
  "Return the time that TEXT, a date as in mail, names, or nil if it is none."
  (when (string-match-p "\\`\\(?:[a-z]+,[ \t]*\\)?[0-9]\\{1,2\\}[ \t]+[a-z]\\{3\\}[ \t]+\
[0-9]\\{4\\}[ \t]+[0-9]+:[0-9]+\\(?::[0-9]+\\)?\
\\(?:[ \t]+\\(?:[-+][0-9]\\{4\\}\\|[a-z]\\{1,5\\}\\)\\(?:[ \t]*(.*)\\)?\\)?\\'"
                        text)
    (let ((parsed (parse-time-string text)))
      (when (and (decoded-time-month parsed) (decoded-time-day parsed))
        (rs-smtpmail--time (decoded-time-year parsed) (decoded-time-month parsed)
                           (decoded-time-day parsed) (decoded-time-hour parsed)
                           (decoded-time-minute parsed)
                           (or (decoded-time-second parsed) 0)
                           (decoded-time-zone parsed))))))

(defun rs-smtpmail--time (year month day hour minute second &optional zone)
  "Return the time of these numbers, or nil if there is no such time.
They are YEAR, MONTH, DAY, HOUR, MINUTE, SECOND and, in seconds, ZONE, by
default the local one."
  (and (<= 1 month 12)
       (<= 1 day (date-days-in-month year month))
       (<= 0 hour 23)
       (<= 0 minute 59)
       (<= 0 second 59)
       (encode-time (list second minute hour day month year nil -1 zone))))

(defun rs-smtpmail--parse-day-and-time (text now)
  "Return the time that TEXT, a day or a time or both, names after NOW.
Return nil if it is something else."
  (when (string-match
         (concat "\\`\\(?:on[ \t]+\\)?"
                 "\\(?1:today\\|tomorrow\\|[a-z]\\{3,9\\}\\|"
                 "\\(?2:[0-9]\\{4\\}\\)-\\(?3:[0-9]\\{1,2\\}\\)-\\(?4:[0-9]\\{1,2\\}\\)\\)?"
                 "\\(?:\\(?:\\`\\|[ \t]+\\|[ \t]*,[ \t]*\\|t\\)\\(?:at[ \t]+\\)?"
                 "\\(?:\\(?5:[0-9]\\{1,2\\}\\):\\(?6:[0-9]\\{2\\}\\)"
                 "\\(?::\\(?7:[0-9]\\{2\\}\\)\\(?:[.,][0-9]+\\)?\\)?"
                 "[ \t]*\\(?8:[ap]m\\)?\\|\\(?5:[0-9]\\{1,2\\}\\)[ \t]*\\(?8:[ap]m\\)\\)"
                 "[ \t]*\\(?9:z\\|[-+][0-9]\\{2\\}:?[0-9]\\{2\\}\\)?\\)?\\'")
         text)
    (let* ((part (lambda (group) (match-string group text)))
           (number (lambda (group) (string-to-number (or (funcall part group) "0"))))
           (name (and (funcall part 1) (downcase (funcall part 1))))
           (date (and (funcall part 2) (mapcar number '(2 3 4))))
           (has-time (funcall part 5))
           (hour (if has-time
                     (rs-smtpmail--hour (funcall number 5) (funcall part 8))
                   rs-smtpmail--morning))
           (minute (funcall number 6))
           (second (funcall number 7))
           (zone (and (funcall part 9) (rs-smtpmail--parse-zone (funcall part 9))))
           (today (decode-time now))
           (at (lambda (days)
                 (let ((date (decode-time
                              (encode-time
                               (list 0 0 12 (+ days (decoded-time-day today))
                                     (decoded-time-month today)
                                     (decoded-time-year today) nil -1 nil)))))
                   (rs-smtpmail--time (decoded-time-year date)
                                      (decoded-time-month date)
                                      (decoded-time-day date)
                                      hour minute second)))))
      (cond
       ((null hour) nil)
       (date (apply #'rs-smtpmail--time
                    (append date (list hour minute second zone))))
       (zone nil)
       ((null name)
        (and has-time
             (let ((time (funcall at 0)))
               (if (and time (not (time-less-p now time)))
                   (funcall at 1)
                 time))))
       ((equal name "today") (and has-time (funcall at 0)))
       ((equal name "tomorrow") (funcall at 1))
       (t (when-let ((weekday (rs-smtpmail--weekday name)))
            (let* ((days (mod (- weekday (decoded-time-weekday today)) 7))
                   (time (funcall at days)))
              (if (and time (not (time-less-p now time)))
                  (funcall at (+ days 7))
                time))))))))

(defun rs-smtpmail--weekday (name)
  "Return the number of the weekday NAME, 0 for Sunday, or nil if it is none."
  (and (seq-some (lambda (full) (string-prefix-p name full))
                 '("sunday" "monday" "tuesday" "wednesday" "thursday" "friday"
                   "saturday"))
       (cdr (assoc (substring name 0 3) parse-time-weekdays))))

(defun rs-smtpmail--hour (hour half)
  "Return HOUR in the HALF of a day, \"am\", \"pm\" or nil, or nil if it is wrong."
  (cond ((null half) hour)
        ((not (<= 1 hour 12)) nil)
        (t (+ (mod hour 12) (if (equal (downcase half) "pm") 12 0)))))

(defun rs-smtpmail--parse-zone (text)
  "Return the seconds east of Greenwich that TEXT, such as +01:00 or Z, means."
  (if (string-match "\\`\\([-+]\\)\\([0-9][0-9]\\):?\\([0-9][0-9]\\)\\'" text)
      (* (if (equal (match-string 1 text) "-") -60 60)
         (+ (* 60 (string-to-number (match-string 2 text)))
            (string-to-number (match-string 3 text))))
    0))

(provide 'rs-smtpmail-time)

;;; rs-smtpmail-time.el ends here
